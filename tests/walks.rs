//! The walks of the manual (`docs/walks`): pages whose commands run here, and print what the page has.
//!
//! A page is Markdown. Each block ```` ```console ```` has one or more commands, each after `$ `, with
//! its output. A command is one line, or several that end in `\`. It runs in bash with `pipefail`, standard
//! error printed where standard output is, and must exit with 0: append `; echo $?` to show another exit
//! code. A line `…` stands for any number of lines that the page leaves out, and ` …` at the end of a line
//! for the rest of the line.
//!
//! A walk is a test in a module of its own, `tests/walks/NAME.rs`:
//!
//! ```ignore
//! #[test]
//! fn the_operators_walk_runs() -> Result<()> {
//!     let mut walk = Walk::open("operator")?; // docs/walks/operator.md
//!     walk.run("Before an agent runs", &Shell::new()?)?; // the commands below `## Before an agent runs`
//!     let lab = Lab::new()?;
//!     let agent = Agent::start(&lab.server, CONFIGURATION, &[])?;
//!     let shell = Shell::new()?.inside(&lab.server).agent(&agent)?.without_numbers();
//!     walk.run("A running agent", &shell)?;
//!     agent.stop()?;
//!     walk.finish() // fails if the page has commands that did not run
//! }
//! ```
//!
//! Between two sections a test can do what a page cannot: send traffic, stop a broker. Times, durations and
//! identifiers are not compared, nor are numbers [without numbers](shell::Shell::without_numbers).
//!
//! `UPDATE_DOCS=1 cargo test -p tap53-tests --test walks NAME` writes the output of each command that
//! prints something else than the page has, without `…`; what matches stays as it is. Begin a page with
//! commands alone. Choose commands that print little (`--limit`, `--fields`, `| head -5`), because each
//! line will be read.

#[path = "walks/analyst.rs"]
mod analyst;
#[path = "walks/data_engineer.rs"]
mod data_engineer;
#[path = "walks/incident.rs"]
mod incident;
#[path = "walks/mask.rs"]
mod mask;
#[path = "walks/operator.rs"]
mod operator;
#[path = "walks/page.rs"]
mod page;
#[path = "walks/shell.rs"]
mod shell;
