//! `cargo xtask docs`: the manual as a searchable site.
//!
//! ```text
//!  docs/SUMMARY.md ─▶ pages, and the files that they link ─▶ target/book/src ─▶ mdbook ─▶ target/book/html
//! ```
//!
//! mdBook takes pages from below one directory only, and the manual has pages at the root of the
//! repository and in `deploy` as well. So the pages are copied first, with the repository's layout,
//! and every relative link holds here, on the site, and where the repository is browsed.

mod links;
pub(crate) mod mdbook;

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail, ensure};

use crate::workspace::Workspace;

/// Checks the links of the manual and builds it.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let problems = links::check(&workspace.root)?;
    ensure!(problems.is_empty(), "the manual has dead links:\n  {}", problems.join("\n  "));

    let book = workspace.target.join("book");
    if book.exists() {
        fs::remove_dir_all(&book).with_context(|| format!("cannot remove {}", book.display()))?;
    }
    copy_pages(&workspace.root, &book)?;
    build(&mdbook::program(workspace)?, &book)?;
    for page in links::pages_of_summary(&workspace.root)? {
        let built = book.join("html").join(page).with_extension("html");
        ensure!(built.is_file(), "mdbook did not write {}", built.display());
    }
    println!("the manual is {}", book.join("html/index.html").display());
    Ok(())
}

/// Copies the sources of the site into `book`.
fn copy_pages(root: &Path, book: &Path) -> Result<()> {
    let source = book.join("src");
    let pages = links::pages_of_summary(root)?;
    let mut files: BTreeSet<_> = pages.iter().cloned().collect();
    for page in &pages {
        files.extend(links::linked_files(root, page)?);
    }
    for file in &files {
        let target = source.join(file);
        let parent = target.parent().context("a file is in a directory")?;
        fs::create_dir_all(parent)?;
        fs::copy(root.join(file), &target)
            .with_context(|| format!("cannot copy {}", file.display()))?;
    }
    fs::write(source.join("SUMMARY.md"), links::rebased_summary(root)?)?;
    fs::copy(root.join("docs/book.toml"), book.join("book.toml"))
        .context("cannot copy docs/book.toml")?;
    Ok(())
}

/// Runs mdBook, which succeeds with warnings: here they are errors.
fn build(mdbook: &Path, book: &Path) -> Result<()> {
    let output = Command::new(mdbook)
        .arg("build")
        .arg(book)
        .env("MDBOOK_LOG", "warn")
        .output()
        .with_context(|| format!("cannot run {}", mdbook.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || !said.trim().is_empty() {
        bail!("mdbook build: {}\n{}", output.status, said.trim());
    }
    Ok(())
}
