//! The commands. The only room that knows all others, and the only one that writes to stdout.

mod auth;
mod check;
mod dead;
mod demo;
mod failure;
mod open;
mod output;
mod queue;
mod rate;
mod sandbox;
mod send;
mod signals;
mod simulate;
mod status;
mod trace;
mod why;
mod worker;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use self::failure::Failure;
use self::output::Output;
use crate::config::{self, Config, Flag, Sources};
use crate::logging::{self, Talk};
use crate::{message, oauth};

/// How long the program waits at its end for a thread that still reads a file or a terminal.
const END_GRACE: Duration = Duration::from_millis(200);
/// How long it waits for HubSpot's answer to a refresh: a little more than the call may take.
const REFRESH_GRACE: Duration = Duration::from_secs(25);

/// A durable, queue-backed dispatcher for HubSpot Single Send email.
#[derive(Debug, Parser)]
#[command(name = "postrider", version)]
#[command(
    after_help = "Exit codes: 0 done, 64 bad usage or configuration, 65 bad input data, \
                        69 queue or HubSpot unreachable, 70 a fault of Postrider's own."
)]
struct Cli {
    /// Configuration file [default: config/postrider.toml, when it exists]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Everywhere")]
    config: Option<PathBuf>,
    /// Print data as JSON, a line each
    #[arg(long, global = true, help_heading = "Everywhere")]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
    Worker(worker::Args),
    Send(send::Args),
    #[command(subcommand)]
    Dead(dead::Command),
    Trace(trace::Args),
    Why(why::Args),
    Queue(queue::Args),
    Check(check::Args),
    #[command(subcommand)]
    Auth(auth::Command),
    Sandbox(sandbox::Args),
    Simulate(simulate::Args),
    /// Print the JSON Schema of a request
    Schema,
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are asked for; everything else is bad usage.
            let code = if error.use_stderr() { 64 } else { 0 };
            error.print().ok();
            return ExitCode::from(code);
        }
    };
    let mut output = Output::new(cli.json, config::takes_colors());
    let ended = catch_unwind(AssertUnwindSafe(|| {
        run(cli, &mut output)?;
        output.flush().map_err(Failure::from)
    }));
    match ended {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(failure)) => {
            // What was printed before stays printed.
            output.flush().ok();
            failure.tell()
        }
        // The panic's own words are on stderr already.
        Err(_) => Failure::bug("Postrider stopped over a fault of its own").tell(),
    }
}

fn run(cli: Cli, output: &mut Output) -> Result<(), Failure> {
    let Cli {
        config, command, ..
    } = cli;
    let directives = config::log_directives();
    let colors = config::takes_colors();
    logging::init(command.talk(), directives.as_deref(), colors).map_err(|error| {
        let directives = directives.unwrap_or_default();
        Failure::usage(format!("RUST_LOG is {directives:?}: {error}"))
            .hint("write a level, or levels by module: `info`, `warn,postrider=debug`")
    })?;
    keep_no_core();
    crate::crypto::init_crypto();
    let sources = Sources::of_process(config, command.flags());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::bug(format!("the runtime cannot start: {error}")))?;
    let ended = runtime.block_on(async {
        let ended = command.run(&sources, output).await;
        oauth::finish(REFRESH_GRACE).await;
        ended
    });
    config::end_commands();
    runtime.shutdown_timeout(END_GRACE);
    ended
}

/// A dump of the memory would hold the tokens. Where the system does not let itself be told, it goes by
/// its own limits.
fn keep_no_core() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
            tracing::debug!(%error, "a crash may leave a dump of the memory");
        }
    }
}

fn schema(output: &mut Output) -> Result<(), Failure> {
    let schema = serde_json::to_string_pretty(&message::schema())
        .map_err(|error| Failure::bug(format!("the schema cannot be written: {error}")))?;
    Ok(output.line(schema)?)
}

/// Whoever sets another program's variable may believe that it is read here.
fn warn_of_api_keys(sources: &Sources) {
    for variable in config::foreign_hapikeys(sources) {
        tracing::warn!(
            variable,
            hint = "run `postrider auth migrate`",
            "a variable holds an API key (hapikey): Postrider does not read it, and HubSpot takes none since {}",
            config::HAPIKEY_DEAD_SINCE
        );
    }
}

impl Command {
    async fn run(self, sources: &Sources, output: &mut Output) -> Result<(), Failure> {
        let config = || Config::load(sources);
        match self {
            Self::Demo(args) => demo::run(args, output).await,
            Self::Worker(_) => {
                let config = config()?;
                warn_of_api_keys(sources);
                worker::run(&config).await
            }
            Self::Send(args) => send::run(&config()?, args, output).await,
            Self::Dead(command) => dead::run(&config()?, command, output).await,
            Self::Trace(args) => trace::run(&config()?, &args, output).await,
            Self::Why(args) => why::run(&config()?, &args, output).await,
            Self::Queue(args) => queue::run(&config()?, &args, output).await,
            Self::Check(args) => check::run(&config()?, &args, sources, output).await,
            Self::Auth(command) => auth::run(command, sources, output).await,
            Self::Sandbox(args) => sandbox::run(args, output).await,
            Self::Simulate(args) => simulate::run(&args, output),
            Self::Schema => schema(output),
        }
    }

    fn talk(&self) -> Talk {
        match self {
            Self::Worker(_) | Self::Sandbox(_) => Talk::Service,
            Self::Demo(_) => Talk::Demo,
            Self::Simulate(_) => Talk::Simulation,
            Self::Send(_)
            | Self::Dead(_)
            | Self::Trace(_)
            | Self::Why(_)
            | Self::Queue(_)
            | Self::Check(_)
            | Self::Auth(_)
            | Self::Schema => Talk::Command,
        }
    }

    /// What was set by a flag and not by the file.
    fn flags(&self) -> Vec<Flag> {
        match self {
            Self::Worker(args) => args.flags(),
            Self::Demo(_)
            | Self::Send(_)
            | Self::Dead(_)
            | Self::Trace(_)
            | Self::Why(_)
            | Self::Queue(_)
            | Self::Check(_)
            | Self::Auth(_)
            | Self::Sandbox(_)
            | Self::Simulate(_)
            | Self::Schema => Vec::new(),
        }
    }
}
