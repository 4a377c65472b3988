//! `postrider sandbox`: a HubSpot to try things out on.

mod check;

use std::net::SocketAddr;

use jiff::tz::TimeZone;
use secrecy::SecretString;
use tokio::net::TcpListener;

use super::failure::{Exit, Failure};
use super::output::{Output, talk};
use super::signals::Stop;
use crate::config::ACCOUNT_TYPES;
use crate::sandbox::{self, Faults, Limit, Options, Span};

const CONTROL: &str = "\
Trouble for one email: by its address, as ada+http503x2@example.com or ada+PREVIOUSLY_BOUNCED@example.com.
A token that ends in -portal-42 opens portal 42; one with -unscoped in it may not send.
While it runs: curl http://ADDR/_sandbox/faults lists every tag, and
  curl -d 5xx=0.05 http://ADDR/_sandbox/faults      sets what goes wrong
  curl -d TOKEN http://ADDR/_sandbox/token          sets the tokens that are good (*: any)
  curl -d '{\"expires_in\":60}' http://ADDR/_sandbox/oauth
docs/sandbox.md tells all of it.";

/// Run a stand-in for HubSpot, for demos, tests and producers' own CI
///
/// It takes Single Send as HubSpot does, remembers sendIds, counts limits, and sends nothing. Its
/// page shows the mail.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, after_long_help = CONTROL)]
pub(super) struct Args {
    #[command(subcommand)]
    other: Option<Other>,
    #[command(flatten)]
    serve: Serve,
}

/// What else is done with one.
#[derive(Debug, clap::Subcommand)]
enum Other {
    Check(check::Args),
}

#[derive(Debug, clap::Args)]
struct Serve {
    /// Where to listen; port 0 takes a free one and prints it
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8085")]
    listen: SocketAddr,
    /// The only bearer token to accept [default: any]
    #[arg(long)]
    token: Option<SecretString>,
    /// From a call to its answer, such as 20ms-80ms
    #[arg(long, value_name = "TIME", default_value = "0ms")]
    latency: Span,
    /// From a call to the mail's final result
    #[arg(long, value_name = "TIME", default_value = "200ms-2s")]
    results_after: Span,
    /// Sends in any rolling window, such as 100/1s
    #[arg(long, value_name = "CALLS/TIME")]
    limit: Option<Limit>,
    /// Other calls in any rolling window, such as 190/10s
    #[arg(long, value_name = "CALLS/TIME")]
    api_limit: Option<Limit>,
    /// Calls in a day
    #[arg(long, value_name = "CALLS")]
    daily: Option<u64>,
    /// What goes wrong, such as 5xx=0.05,cut=0.02,401=20s
    #[arg(long, default_value = "")]
    faults: Faults,
    /// The same calls at the same times meet the same chances
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The account's: its day ends at midnight there
    #[arg(long, value_name = "ZONE", default_value = "UTC", value_parser = time_zone)]
    time_zone: TimeZone,
    /// What kind of account it is
    #[arg(long, value_name = "TYPE", default_value = "DEVELOPER_TEST",
        value_parser = ACCOUNT_TYPES)]
    account_type: String,
}

pub(super) async fn run(args: Args, output: &mut Output) -> Result<(), Failure> {
    match args.other {
        Some(Other::Check(args)) => check::run(&args, output),
        None => serve(args.serve, output).await,
    }
}

async fn serve(args: Serve, output: &mut Output) -> Result<(), Failure> {
    let stop = Stop::on_signal()?;
    let cannot = |error| {
        Failure::new(
            Exit::Unavailable,
            format!("cannot listen at {}: {error}", args.listen),
        )
        .hint("name another address with --listen; port 0 takes a free one")
    };
    let listener = TcpListener::bind(args.listen).await.map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?;
    if output.json {
        output.object(&serde_json::json!({"listening": address}))?;
    } else {
        output.line(format_args!("http://{address}"))?;
    }
    output.flush()?;
    talk(format_args!(
        "the sandbox listens: set accounts.NAME.base_url to that address, and open it to see the \
         mail; Ctrl-C ends it"
    ));
    let options = Options {
        token: args.token,
        latency: args.latency,
        results_after: args.results_after,
        limit: args.limit,
        api_limit: args.api_limit,
        daily: args.daily,
        faults: args.faults,
        seed: args.seed,
        time_zone: args.time_zone,
        account_type: args.account_type,
    };
    sandbox::serve(listener, options, stop.told)
        .await
        .map_err(|error| Failure::new(Exit::Unavailable, format!("{error:#}")))
}

fn time_zone(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name).map_err(|_| "write a name such as Europe/Berlin".to_owned())
}
