//! The records that `query` and `report` read: those of files or of a running agent, and the expression that
//! selects some of them.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use tap53::{
    config::{CONTROL_SOCKET, Config, Error, LogLevel, Overrides, port_of_flag},
    control::{client::Client, protocol::PastRequest},
    query::{self, Outcome, Receiver, Window},
    telemetry::print_error,
};
use tap53_base::visible::visible;
use tap53_query::{
    catalogue::Catalogue,
    expression::{self, Expression},
    query::Counts,
};
use tap53_records::encode::Profile;

use super::{interrupt::Interrupt, replay::refuse_filters_by_pod, switch::lasting};
use crate::exit;

/// Arguments that select the records.
#[derive(Args, Debug)]
pub(super) struct Source {
    /// Captures and Avro files; - is a capture on standard input. The last argument may be an expression
    #[arg(required_unless_present = "agent", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Select the records that meet this expression
    #[arg(short, long = "where", value_name = "EXPRESSION")]
    filter: Option<String>,
    #[command(flatten)]
    agent: AgentArguments,
    #[command(flatten)]
    capture: CaptureArguments,
}

/// Arguments for reading from a running agent.
#[derive(Args, Debug)]
#[command(next_help_heading = "Running agent")]
struct AgentArguments {
    /// Read the records of a running agent instead of files: those in its memory (control.recent_bytes)
    #[arg(long)]
    agent: bool,
    /// Only the last COUNT records in the agent's memory
    #[arg(long, value_name = "COUNT", requires = "agent")]
    last: Option<u64>,
    /// Only transactions in the agent's memory that ended within this time, such as 30s or 5m
    #[arg(long, value_name = "DURATION", value_parser = lasting, requires = "agent")]
    since: Option<Duration>,
    /// Read new records for this time; without --last or --since, only these. Ctrl-C ends it earlier
    #[arg(long = "for", value_name = "DURATION", value_parser = lasting, requires = "agent")]
    live: Option<Duration>,
    /// Control socket of the agent
    #[arg(long, value_name = "PATH", default_value = CONTROL_SOCKET, requires = "agent")]
    socket: PathBuf,
}

/// Arguments for reading captures.
#[derive(Args, Debug)]
#[command(next_help_heading = "Captures")]
struct CaptureArguments {
    /// Configuration file (YAML), of which ports, timeouts, filters and privacy are used for captures
    #[arg(short, long, value_name = "FILE", conflicts_with = "agent")]
    config: Option<PathBuf>,
    /// DNS port of captures: a number, mdns or llmnr; may be repeated [default: 53]
    #[arg(short, long = "port", value_name = "PORT", value_parser = dns_port, conflicts_with = "agent")]
    ports: Vec<u16>,
}

fn dns_port(text: &str) -> Result<u16, String> {
    port_of_flag(text)
}

/// Records that are ready to be read.
pub(super) struct Selected {
    origin: Origin,
    capture: CaptureArguments,
    /// The fields of the records.
    pub(super) catalogue: Catalogue,
    /// Text of the expression.
    pub(super) text: Option<String>,
    /// Selects records.
    pub(super) expression: Option<Expression>,
}

enum Origin {
    Files(Vec<PathBuf>),
    Agent(Client, Window, Interrupt),
}

impl Source {
    /// Looks at the files and parses the expression. The exit code is that of refused arguments, whose error
    /// is printed.
    pub(super) fn select(self) -> anyhow::Result<Result<Selected, ExitCode>> {
        let Self { mut files, filter, agent, capture } = self;
        let last = take_expression(&mut files, agent.agent, &Catalogue::new(Profile::Full)?);
        if filter.is_some() && last.is_some() {
            return Ok(Err(refuse(
                "there are two expressions: one in --where, one as the last argument",
            )));
        }
        if let Some(file) = files.first().filter(|_| agent.agent) {
            let why = format!("--agent reads no files, and {} is no expression", file.display());
            return Ok(Err(refuse(&why)));
        }
        let text = filter.or(last);
        let (origin, catalogue) = match agent.agent {
            true => {
                let client = Client::new(&agent.socket);
                let origin = Origin::Agent(client, agent.window(), Interrupt::new()?);
                (origin, Catalogue::new(Profile::Full)?)
            }
            false => {
                let catalogue = catalogue_of(&files)?;
                (Origin::Files(files), catalogue)
            }
        };
        let parsed = text.as_deref().map(|text| expression::parse(text, &catalogue)).transpose();
        Ok(match parsed {
            Ok(expression) => Ok(Selected { origin, capture, catalogue, text, expression }),
            Err(error) => Err(refuse(&error.to_string())),
        })
    }
}

impl AgentArguments {
    /// Returns what is read: all of the memory if nothing is chosen.
    fn window(&self) -> Window {
        let since_ms = self.since.map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        let wants_past = self.last.is_some() || since_ms.is_some() || self.live.is_none();
        let past = wants_past.then_some(PastRequest { last: self.last, since_ms });
        Window { past, live: self.live }
    }
}

impl Selected {
    /// Loads the configuration for captures. `chains` enables the search for the chains behind answers.
    pub(super) fn config(&self, chains: bool) -> Result<Config, Error> {
        let overrides = Overrides {
            // The interfaces are those of the files.
            interfaces: vec!["*".to_owned()],
            log_level: Some(LogLevel::Warn),
            ..Overrides::default()
        };
        let CaptureArguments { config: file, ports } = &self.capture;
        let mut config = Config::load(file.as_deref(), &overrides)?;
        refuse_filters_by_pod(file.as_deref(), &config)?;
        if !ports.is_empty() {
            config.capture.ports.clone_from(ports);
            config.capture.ports.sort_unstable();
            config.capture.ports.dedup();
        }
        config.chains.enabled |= chains && config.pair.merge_interfaces;
        Ok(config)
    }

    /// Reads the records.
    pub(super) fn read(
        &self,
        config: &Config,
        receiver: &mut dyn Receiver,
    ) -> Result<Outcome, query::Error> {
        match &self.origin {
            Origin::Files(files) => query::read_files(files, config, receiver),
            Origin::Agent(client, window, interrupt) => query::read_agent(
                client,
                *window,
                |following| {
                    interrupt.ends(following.connection().map_err(query::Error::Connection)?);
                    Ok(())
                },
                || interrupt.is_requested(),
                receiver,
            ),
        }
    }

    /// Returns names of the files or of the agent, for people.
    pub(super) fn names(&self) -> Vec<String> {
        match &self.origin {
            Origin::Files(files) => files.iter().map(|file| file.display().to_string()).collect(),
            Origin::Agent(client, ..) => vec![format!("agent at {}", client.place())],
        }
    }
}

/// Takes an expression from the end of the arguments: one that is no file, but has an operator or is a field.
fn take_expression(
    files: &mut Vec<PathBuf>,
    is_alone: bool,
    catalogue: &Catalogue,
) -> Option<String> {
    let last = files.last().filter(|_| files.len() > 1 || is_alone)?;
    let text = last.to_str().filter(|_| !last.exists())?;
    let is_expression = text.contains([' ', '=', '<', '>', '~', '(']);
    if !is_expression && catalogue.find(text).is_none() {
        return None;
    }
    let text = text.to_owned();
    files.pop();
    Some(text)
}

/// Returns the fields of the files' profile: the flat one if all files have records in it.
fn catalogue_of(files: &[PathBuf]) -> anyhow::Result<Catalogue> {
    let mut profile = None;
    for path in files {
        let of_file = match query::kind_of(path)? {
            query::Kind::Records(profile) => profile,
            query::Kind::Capture => Profile::Full,
            query::Kind::Summaries => continue,
        };
        profile = Some(profile.map_or(of_file, |profile: Profile| profile.min(of_file)));
    }
    Ok(Catalogue::new(profile.unwrap_or_default())?)
}

/// Prints why arguments are refused; returns the exit code.
pub(super) fn refuse(why: &str) -> ExitCode {
    print_error(why);
    ExitCode::from(exit::REFUSED)
}

/// Prints the numbers of records and what is wrong with the source; returns the exit code.
pub(super) fn finish(outcome: &Outcome, counts: Counts) -> ExitCode {
    let Counts { read, selected } = counts;
    for path in &outcome.summaries {
        eprintln!("{}: ledger summaries, which are not read", path.display());
    }
    for note in &outcome.notes {
        eprintln!("tap53: {}", visible(note));
    }
    if !outcome.ended_early {
        eprintln!("{selected} of {read} records selected");
        for ledger in &outcome.ledgers {
            if !ledger.balanced() || ledger.lost_records() {
                eprintln!("records of captures were lost:\n{ledger}");
            }
        }
    }
    for error in &outcome.errors {
        print_error(&error.to_string());
    }
    match outcome.errors.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(exit::FAILED),
    }
}
