//! Links between the pages of the repository, and the files that they name.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, Result};
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

const SUMMARY: &str = "docs/SUMMARY.md";

/// Directories of which a code span names a file, as `docs/…` does.
const SOURCES: [&str; 8] =
    [".github", "agent", "agent-ebpf", "deploy", "docs", "examples", "tests", "xtask"];

/// Directories that hold pages, beside the root.
const PAGES: [&str; 3] = ["deploy", "docs", "examples"];

/// What a page says of others.
#[derive(Default)]
struct Page {
    /// Targets of links and images, as written.
    links: Vec<String>,
    /// Identifiers of its headings.
    headings: BTreeSet<String>,
    /// Code spans that name a file of the repository.
    named_files: Vec<String>,
}

/// What is wrong with the pages of the repository at `root`: links to files or headings that are
/// not there, code spans that name no file, pages that the manual leaves out. One line each.
///
/// # Errors
/// When a page cannot be read.
pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let pages = pages(root)?;
    let listed: BTreeSet<_> = pages_of_summary(root)?.into_iter().collect();
    let mut problems = Vec::new();
    for (path, page) in &pages {
        let shown = path.display();
        if path.starts_with("docs") && path != Path::new(SUMMARY) && !listed.contains(path) {
            problems.push(format!("{shown}: is not in {SUMMARY}"));
        }
        for link in &page.links {
            if let Some(problem) = problem_of(root, &pages, &listed, path, link) {
                problems.push(format!("{shown}: [{link}]: {problem}"));
            }
        }
        // What a change log names may be gone.
        if path != Path::new("CHANGELOG.md") {
            let missing = page.named_files.iter().filter(|file| !root.join(file).exists());
            problems.extend(missing.map(|file| format!("{shown}: `{file}` is not there")));
        }
    }
    Ok(problems)
}

/// The pages of the manual, in its order; paths from the root.
///
/// # Errors
/// When the summary cannot be read.
pub(super) fn pages_of_summary(root: &Path) -> Result<Vec<PathBuf>> {
    let summary = read(root, Path::new(SUMMARY))?;
    Ok(summary.links.iter().map(|link| resolved(Path::new(SUMMARY), link)).collect())
}

/// The summary for a book whose source is the root of the repository.
///
/// # Errors
/// When the summary cannot be read.
pub(super) fn rebased_summary(root: &Path) -> Result<String> {
    let summary = text(root, Path::new(SUMMARY))?;
    let mut pieces = summary.split("](");
    let mut rebased = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (link, rest) = piece.split_once(')').context("a link of the summary has no end")?;
        let target = resolved(Path::new(SUMMARY), link);
        rebased.push_str(&format!("]({}){rest}", target.display()));
    }
    Ok(rebased)
}

/// The files that `page` links, paths from the root.
///
/// # Errors
/// When the page cannot be read.
pub(super) fn linked_files(root: &Path, page: &Path) -> Result<Vec<PathBuf>> {
    let links = read(root, page)?.links;
    let local = links.iter().filter_map(|link| split(link)).filter(|(file, _)| !file.is_empty());
    let files = local.map(|(file, _)| resolved(page, file));
    Ok(files.filter(|file| root.join(file).is_file()).collect())
}

/// All pages: those at the root, and those below [`PAGES`].
fn pages(root: &Path) -> Result<BTreeMap<PathBuf, Page>> {
    let mut paths = Vec::new();
    find_pages(root, Path::new(""), false, &mut paths)?;
    for directory in PAGES {
        find_pages(root, Path::new(directory), true, &mut paths)?;
    }
    paths.into_iter().map(|path| read(root, &path).map(|page| (path, page))).collect()
}

fn find_pages(root: &Path, below: &Path, deep: bool, found: &mut Vec<PathBuf>) -> Result<()> {
    let directory = root.join(below);
    let entries =
        fs::read_dir(&directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in entries {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            if deep {
                find_pages(root, &path, deep, found)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    Ok(())
}

/// `None` where the link leads somewhere.
fn problem_of(
    root: &Path,
    pages: &BTreeMap<PathBuf, Page>,
    listed: &BTreeSet<PathBuf>,
    page: &Path,
    link: &str,
) -> Option<String> {
    let (file, heading) = split(link)?;
    let target = if file.is_empty() { page.to_path_buf() } else { resolved(page, file) };
    let shown = target.display();
    if !root.join(&target).is_file() {
        return Some(format!("there is no file {shown}"));
    }
    let is_page = target.extension().is_some_and(|extension| extension == "md");
    if is_page && listed.contains(page) && !listed.contains(&target) {
        return Some(format!("{shown} is not in {SUMMARY}, so the site has no such page"));
    }
    let heading = heading?;
    let known = pages.get(&target).is_some_and(|page| page.headings.contains(heading));
    (!known).then(|| format!("{shown} has no heading #{heading}"))
}

/// File and heading of a link into the repository; `None` for one that leads elsewhere.
fn split(link: &str) -> Option<(&str, Option<&str>)> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    Some(match link.split_once('#') {
        Some((file, heading)) => (file, Some(heading)),
        None => (link, None),
    })
}

/// The path from the root of what `page` calls `link`.
fn resolved(page: &Path, link: &str) -> PathBuf {
    let mut path = page.parent().unwrap_or(Path::new("")).to_path_buf();
    for component in Path::new(link).components() {
        match component {
            Component::ParentDir => drop(path.pop()),
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path
}

fn text(root: &Path, path: &Path) -> Result<String> {
    fs::read_to_string(root.join(path)).with_context(|| format!("cannot read {}", path.display()))
}

fn read(root: &Path, path: &Path) -> Result<Page> {
    Ok(parse(&text(root, path)?))
}

fn parse(markdown: &str) -> Page {
    let mut page = Page::default();
    let mut heading: Option<String> = None;
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                page.links.push(dest_url.into_string());
            }
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                let title = heading.take().unwrap_or_default();
                let identifier = unique(&page.headings, identifier(&title));
                page.headings.insert(identifier);
            }
            Event::Text(text) => {
                if let Some(title) = &mut heading {
                    title.push_str(&text);
                }
            }
            Event::Code(code) => {
                if names_a_file(&code) {
                    page.named_files.push(code.to_string());
                }
                if let Some(title) = &mut heading {
                    title.push_str(&code);
                }
            }
            _ => {}
        }
    }
    page
}

/// What a heading is linked by, on the site as where the repository is browsed.
fn identifier(title: &str) -> String {
    let kept = |character: &char| character.is_alphanumeric() || " -_".contains(*character);
    title.to_lowercase().chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn unique(taken: &BTreeSet<String>, identifier: String) -> String {
    let numbered = (1..).map(|number| format!("{identifier}-{number}"));
    let mut candidates = [identifier.clone()].into_iter().chain(numbered);
    candidates.find(|candidate| !taken.contains(candidate)).unwrap_or(identifier)
}

/// True for `agent/src/main.rs` and the like, without wildcards.
fn names_a_file(code: &str) -> bool {
    let is_path = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    code.split_once('/').is_some_and(|(directory, _)| SOURCES.contains(&directory))
        && code.chars().all(is_path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_of_this_repository_have_no_dead_links() -> Result<()> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("a parent")?;
        let problems = check(root)?;
        assert!(problems.is_empty(), "{}", problems.join("\n"));
        Ok(())
    }

    #[test]
    fn what_leads_nowhere_is_named() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let root = directory.path();
        fs::create_dir_all(root.join("docs/sub"))?;
        for directory in PAGES {
            fs::create_dir_all(root.join(directory))?;
        }
        fs::write(root.join(SUMMARY), "- [A](a.md)\n- [B](sub/b.md)\n")?;
        fs::write(
            root.join("docs/a.md"),
            "# A title: `code`, twice\n\n# A title: `code`, twice\n\n[ok](#a-title-code-twice-1) \
             [ok](sub/b.md#b) [elsewhere](https://example.com/x#y) [gone](gone.md) \
             [heading](sub/b.md#c) [unlisted](../README.md) `docs/a.md` `docs/gone.rs`",
        )?;
        fs::write(root.join("docs/sub/b.md"), "# B\n[up](../a.md)")?;
        fs::write(root.join("docs/lost.md"), "")?;
        fs::write(root.join("README.md"), "[fine](docs/a.md)")?;
        let problems = check(root)?;
        assert_eq!(
            problems,
            [
                "docs/a.md: [gone.md]: there is no file docs/gone.md",
                "docs/a.md: [sub/b.md#c]: docs/sub/b.md has no heading #c",
                "docs/a.md: [../README.md]: README.md is not in docs/SUMMARY.md, so the site has no \
                 such page",
                "docs/a.md: `docs/gone.rs` is not there",
                "docs/lost.md: is not in docs/SUMMARY.md",
            ]
        );
        Ok(())
    }

    #[test]
    fn the_summary_leads_from_the_root() -> Result<()> {
        let directory = tempfile::tempdir()?;
        fs::create_dir(directory.path().join("docs"))?;
        fs::write(
            directory.path().join(SUMMARY),
            "[R](../README.md)\n[M](README.md)\n- [A](a.md)\n",
        )?;
        let rebased = rebased_summary(directory.path())?;
        assert_eq!(rebased, "[R](README.md)\n[M](docs/README.md)\n- [A](docs/a.md)\n");
        Ok(())
    }
}
