//! Checks that the modules of a crate do not import each other in a circle.
//!
//! Between crates the compiler ensures it. Inside a crate, the top-level modules are compared: a `use` or a
//! path of another module is an edge, except in tests. The crate's root is not a module here, since it only
//! combines the modules; its reexports are followed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use syn::{Attribute, Item, ItemMod, UseTree, Visibility, visit::Visit};

/// Modules by name, each with those that it uses.
type Uses = BTreeMap<String, BTreeSet<String>>;

/// The modules of the crate with this root, and what each uses of the others.
fn uses(root: &Path) -> Result<Uses> {
    let source = parse(root)?;
    let directory = root.parent().context("a directory")?;
    let mut modules = Vec::new();
    let mut exported = BTreeMap::new();
    for item in &source.items {
        match item {
            Item::Mod(module) if !is_test(&module.attrs) => modules.push(module),
            Item::Use(item) if !matches!(item.vis, Visibility::Inherited) => {
                leaves(&item.tree, &mut Vec::new(), &mut |path| {
                    if let [module, .., name] = path {
                        exported.insert(name.clone(), module.clone());
                    }
                });
            }
            _ => {}
        }
    }
    let names: BTreeSet<String> = modules.iter().map(|module| module.ident.to_string()).collect();
    let mut uses = Uses::new();
    for module in modules {
        let name = module.ident.to_string();
        let mut found =
            Found { names: &names, exported: &exported, at: vec![], uses: BTreeSet::new() };
        found.read(module, directory)?;
        found.uses.remove(&name);
        uses.insert(name, found.uses);
    }
    Ok(uses)
}

/// Finds the top-level modules that a module and its submodules name.
struct Found<'a> {
    names: &'a BTreeSet<String>,
    /// Names that the root exports again, each with its module.
    exported: &'a BTreeMap<String, String>,
    /// Position of the visitor: the modules from the root.
    at: Vec<String>,
    uses: BTreeSet<String>,
}

impl Found<'_> {
    fn read(&mut self, module: &ItemMod, directory: &Path) -> Result<()> {
        if is_test(&module.attrs) {
            return Ok(());
        }
        let name = module.ident.to_string();
        self.at.push(name.clone());
        let inside = directory.join(&name);
        match &module.content {
            Some((_, items)) => self.read_items(items, &inside)?,
            None => {
                let files = [directory.join(format!("{name}.rs")), inside.join("mod.rs")];
                let file = files.iter().find(|file| file.is_file());
                let file = file.with_context(|| format!("no file of module {name}"))?;
                self.read_items(&parse(file)?.items, &inside)?;
            }
        }
        self.at.pop();
        Ok(())
    }

    fn read_items(&mut self, items: &[Item], directory: &Path) -> Result<()> {
        for item in items {
            match item {
                Item::Mod(module) => self.read(module, directory)?,
                item => self.visit_item(item),
            }
        }
        Ok(())
    }

    /// Notes a path, as it is written.
    fn note(&mut self, path: &[String]) {
        let supers = path.iter().take_while(|part| *part == "super").count();
        let rest = match path {
            [first, rest @ ..] if first == "crate" => rest,
            // As many as there are modules above lead to the root.
            _ if supers > 0 && supers == self.at.len() => &path[supers..],
            _ => return,
        };
        let Some(name) = rest.first() else { return };
        let module = if self.names.contains(name) { Some(name) } else { self.exported.get(name) };
        self.uses.extend(module.cloned());
    }
}

impl<'ast> Visit<'ast> for Found<'_> {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_test(&item.attrs) {
            let mut paths = Vec::new();
            leaves(&item.tree, &mut Vec::new(), &mut |path| paths.push(path.to_vec()));
            paths.iter().for_each(|path| self.note(path));
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<_> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        self.note(&parts);
        syn::visit::visit_path(self, path);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_test(&item.attrs) {
            syn::visit::visit_item_fn(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if !is_test(&item.attrs) {
            syn::visit::visit_item_impl(self, item);
        }
    }
}

/// Calls `leaf` with each path of a `use`.
fn leaves(tree: &UseTree, path: &mut Vec<String>, leaf: &mut impl FnMut(&[String])) {
    match tree {
        UseTree::Path(part) => {
            path.push(part.ident.to_string());
            leaves(&part.tree, path, leaf);
            path.pop();
        }
        UseTree::Group(group) => group.items.iter().for_each(|tree| leaves(tree, path, leaf)),
        UseTree::Name(name) => with(path, name.ident.to_string(), leaf),
        UseTree::Rename(name) => with(path, name.ident.to_string(), leaf),
        UseTree::Glob(_) => leaf(path),
    }
}

fn with(path: &mut Vec<String>, name: String, leaf: &mut impl FnMut(&[String])) {
    path.push(name);
    leaf(path);
    path.pop();
}

/// True for what only tests are compiled with.
fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Meta>().is_ok_and(|meta| match meta {
                syn::Meta::Path(path) => path.is_ident("test"),
                // `any(test, feature = "testing")`: for the tests of other crates.
                syn::Meta::List(list) => {
                    list.path.is_ident("any") && list.tokens.to_string().starts_with("test")
                }
                syn::Meta::NameValue(_) => false,
            })
    })
}

fn parse(file: &Path) -> Result<syn::File> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    syn::parse_file(&text).with_context(|| format!("parse {}", file.display()))
}

/// A circle: each module uses the next, and the last one the first. `None` where there is none.
fn circle(uses: &Uses) -> Option<Vec<String>> {
    let mut left = uses.clone();
    // What uses nothing that is left is in no circle.
    while let Some(name) =
        left.iter().find(|(_, uses)| !uses.iter().any(|name| left.contains_key(name)))
    {
        let name = name.0.clone();
        left.remove(&name);
    }
    let mut path = vec![left.keys().next()?.clone()];
    loop {
        let next = left.get(path.last()?)?.iter().find(|name| left.contains_key(*name))?.clone();
        if let Some(start) = path.iter().position(|name| *name == next) {
            return Some(path.split_off(start));
        }
        path.push(next);
    }
}

/// The roots of the product's crates.
fn roots(repository: &Path) -> Result<Vec<PathBuf>> {
    let mut roots = vec![repository.join("agent/src/lib.rs")];
    for entry in fs::read_dir(repository.join("agent/crates"))? {
        roots.push(entry?.path().join("src/lib.rs"));
    }
    roots.sort();
    Ok(roots)
}

#[test]
fn no_crate_has_modules_that_use_each_other_in_a_circle() -> Result<()> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("a repository")?;
    let roots = roots(repository)?;
    let mut circles = Vec::new();
    let mut edges = 0;
    for root in &roots {
        let uses = uses(root)?;
        edges += uses.values().map(BTreeSet::len).sum::<usize>();
        if let Some(circle) = circle(&uses) {
            circles.push(format!("{}: {}", root.display(), circle.join(" -> ")));
        }
    }
    assert!(roots.len() > 5 && edges > 100, "{} crates, {edges} edges", roots.len());
    assert!(circles.is_empty(), "{}", circles.join("\n"));
    Ok(())
}

#[test]
fn a_circle_is_found_and_named_however_it_is_written() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text);
    write("lib.rs", "mod a; mod b; mod c; mod d; pub use c::Thing;")?;
    write("a.rs", "use crate::b::{self, X as Y};")?;
    write("b.rs", "fn f(thing: &super::Thing) {}")?;
    write("c.rs", "mod inside { pub fn g() -> u8 { super::super::a::h() } }")?;
    write("d.rs", "#[cfg(test)] mod tests { use crate::a; }")?;
    let root = directory.path().join("lib.rs");
    assert_eq!(circle(&uses(&root)?), Some(["a", "b", "c"].map(str::to_owned).to_vec()));
    write("c.rs", "pub struct Thing; #[cfg(test)] use crate::a;")?;
    assert_eq!(circle(&uses(&root)?), None);
    Ok(())
}
