"""Reads an HTML page with the parsers of Python, and prints what is in it as one JSON object.

    read_page.py FILE

It must be well-formed XML, and the HTML parser must find the same elements: `elements` counts them by
name, `attributes` lists the names of all attributes, `loaded` what the page would load, `cells` has the
texts of the cells of its tables, and `definitions` those of its list of definitions.
"""

import collections
import html.parser
import json
import sys
import xml.etree.ElementTree


class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.elements = collections.Counter()
        self.attributes = set()
        self.loaded = []
        self.texts = {"td": [], "dd": []}
        self.inside = None

    def handle_starttag(self, tag, attributes):
        self.elements[tag] += 1
        for name, value in attributes:
            self.attributes.add(name)
            if name in ("src", "href", "srcset", "action", "data"):
                self.loaded.append(value)
        if tag in self.texts:
            self.inside = tag
            self.texts[tag].append("")

    def handle_endtag(self, tag):
        if tag == self.inside:
            self.inside = None

    def handle_data(self, data):
        if self.inside:
            self.texts[self.inside][-1] += data


def main(arguments):
    if len(arguments) != 1:
        sys.exit(__doc__)
    with open(arguments[0], encoding="utf-8") as file:
        text = file.read()
    page = Page()
    page.feed(text)
    page.close()
    root = xml.etree.ElementTree.fromstring(text)
    names = collections.Counter(element.tag.rsplit("}", 1)[-1] for element in root.iter())
    if names != page.elements:
        sys.exit(f"XML has {names}, HTML has {page.elements}")
    print(
        json.dumps(
            {
                "elements": page.elements,
                "attributes": sorted(page.attributes),
                "loaded": page.loaded,
                "cells": page.texts["td"],
                "definitions": page.texts["dd"],
            }
        )
    )


main(sys.argv[1:])
