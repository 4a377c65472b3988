//! Where HubSpot's answer is caught: on this machine's own address, or as somebody pastes it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use secrecy::SecretString;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use url::{Host, Url, form_urlencoded};

use crate::cli::failure::Failure;
use crate::cli::output::talk;
use crate::oauth::Attempt;

/// How long the browser may take to fetch its last page.
const GOODBYE: Duration = Duration::from_secs(2);
/// Characters of HubSpot's words that are repeated.
const WORDS_CHARS_MAX: usize = 200;

/// HubSpot's answer to a login.
pub(super) enum Answer {
    Code(SecretString),
    /// With HubSpot's words.
    Denied(String),
    /// It is of another login, or nobody's.
    NotOurs,
    /// It is no answer at all.
    Nothing,
}

/// What an address carries behind its `?`.
pub(super) fn answer_of(query: &str, attempt: &Attempt) -> Answer {
    let (mut code, mut state, mut error, mut words) = (None, None, None, None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "code" => code = Some(value),
            "state" => state = Some(value),
            "error" => error = Some(value),
            "error_description" => words = Some(value),
            _ => {}
        }
    }
    if code.is_none() && error.is_none() {
        return Answer::Nothing;
    }
    if !state.is_some_and(|state| attempt.is_answered_by(&state)) {
        return Answer::NotOurs;
    }
    match (code, error) {
        (_, Some(error)) => {
            let words = words.map_or_else(String::new, |words| format!(": {words}"));
            let told = format!("{error}{words}");
            let told = told.chars().filter(|c| !c.is_control());
            Answer::Denied(told.take(WORDS_CHARS_MAX).collect())
        }
        (Some(code), None) if !code.is_empty() => Answer::Code(code.into_owned().into()),
        (_, None) => Answer::Nothing,
    }
}

/// The address to listen on: of a redirect that leads to this machine by plain http.
pub(super) fn loopback(redirect: &Url) -> Option<SocketAddr> {
    let ip = match redirect.host()? {
        Host::Ipv4(ip) => IpAddr::V4(ip),
        Host::Ipv6(ip) => IpAddr::V6(ip),
        Host::Domain("localhost") => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Host::Domain(_) => return None,
    };
    let port = redirect.port_or_known_default()?;
    (redirect.scheme() == "http" && ip.is_loopback()).then(|| SocketAddr::new(ip, port))
}

// === on this machine ===

struct Waiting {
    attempt: Arc<Attempt>,
    answers: mpsc::Sender<Answer>,
}

/// Waits for the browser. Answers that are not this login's are refused, and it waits on.
pub(super) async fn catch(
    listener: TcpListener,
    redirect: &Url,
    attempt: Arc<Attempt>,
) -> Result<Answer, Failure> {
    let (answers, mut caught) = mpsc::channel(1);
    let app = Router::new()
        .route(redirect.path(), get(page))
        .with_state(Arc::new(Waiting { attempt, answers }));
    let end = CancellationToken::new();
    let serve = axum::serve(listener, app).with_graceful_shutdown(end.clone().cancelled_owned());
    let server = tokio::spawn(serve.into_future());
    let answer = caught.recv().await;
    end.cancel();
    // The browser has its page by then, or never.
    tokio::time::timeout(GOODBYE, server).await.ok();
    answer.ok_or_else(|| Failure::bug("the login's own server stopped"))
}

async fn page(State(waiting): State<Arc<Waiting>>, RawQuery(query): RawQuery) -> Response {
    let answer = answer_of(&query.unwrap_or_default(), &waiting.attempt);
    let (status, told) = match &answer {
        Answer::Code(_) => (
            StatusCode::OK,
            "HubSpot has answered. Go on in the terminal.",
        ),
        Answer::Denied(_) => (StatusCode::OK, "HubSpot says no. The terminal tells why."),
        Answer::NotOurs => {
            talk("an answer that belongs to another login was refused; this one still waits");
            (
                StatusCode::BAD_REQUEST,
                "This is not the login that the terminal waits for.",
            )
        }
        Answer::Nothing => (StatusCode::BAD_REQUEST, "This is no answer of HubSpot's."),
    };
    if matches!(answer, Answer::Code(_) | Answer::Denied(_)) {
        // The first one counts.
        waiting.answers.try_send(answer).ok();
    }
    (status, HEADERS, format!("{PAGE}<p>{told}</p>\n")).into_response()
}

/// Nothing of what was asked is repeated, nothing is loaded, and nothing is kept.
const PAGE: &str =
    "<!doctype html>\n<meta charset=utf-8>\n<title>Postrider</title>\n<h1>Postrider</h1>\n";
const HEADERS: [(header::HeaderName, &str); 5] = [
    (header::CONTENT_TYPE, "text/html; charset=utf-8"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::CACHE_CONTROL, "no-store"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
];

// === pasted ===

/// Reads a code, or the address with it, from stdin; asks again while it is none of this login's.
pub(super) async fn pasted(attempt: &Attempt) -> Result<Answer, Failure> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    talk("paste the address that the browser shows at the end, or the code in it:");
    while let Some(line) = lines.next_line().await? {
        match of_line(line.trim(), attempt) {
            Answer::NotOurs => talk("that belongs to another login; paste this one's:"),
            Answer::Nothing => talk("there is no code in that; paste the whole address:"),
            answer @ (Answer::Code(_) | Answer::Denied(_)) => return Ok(answer),
        }
    }
    Err(Failure::usage("no code was pasted; nothing was stored").hint("log in again"))
}

/// A bare code has no state with it; that it is this login's, PKCE proves to HubSpot.
fn of_line(line: &str, attempt: &Attempt) -> Answer {
    if let Some((_, query)) = line.split_once('?') {
        let query = query.split('#').next().unwrap_or_default();
        return answer_of(query, attempt);
    }
    let is_code = !line.is_empty()
        && line.bytes().all(|byte| byte.is_ascii_graphic())
        && !line.contains(['/', '=', '&']);
    if is_code {
        Answer::Code(line.into())
    } else {
        Answer::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_of_this_machine_is_listened_on() {
        let of = |text: &str| loopback(&Url::parse(text).unwrap()).map(|addr| addr.to_string());
        assert_eq!(of("http://127.0.0.1:8976/cb").unwrap(), "127.0.0.1:8976");
        assert_eq!(of("http://localhost/cb").unwrap(), "127.0.0.1:80");
        assert_eq!(of("http://[::1]:1/cb").unwrap(), "[::1]:1");
        for elsewhere in [
            "https://127.0.0.1:8976/cb",
            "http://192.0.2.1:8976/cb",
            "http://0.0.0.0:8976/cb",
            "http://localhost.example.com/cb",
        ] {
            assert!(of(elsewhere).is_none(), "{elsewhere}");
        }
    }

    #[test]
    fn an_answer_is_this_logins_or_refused() {
        let attempt = Attempt::new().unwrap();
        let told = |line: &str| match of_line(line, &attempt) {
            Answer::Code(_) => "code",
            Answer::Denied(_) => "denied",
            Answer::NotOurs => "not ours",
            Answer::Nothing => "nothing",
        };
        for (line, is) in [
            ("na1-0123-4567", "code"),
            ("http://127.0.0.1/cb?code=x&state=forged", "not ours"),
            ("http://127.0.0.1/cb?code=x", "not ours"),
            ("http://127.0.0.1/cb?error=access_denied&state=", "not ours"),
            ("http://127.0.0.1/cb?state=x", "nothing"),
            ("http://127.0.0.1/cb", "nothing"),
            ("code=x", "nothing"),
            ("", "nothing"),
            ("two words", "nothing"),
        ] {
            assert_eq!(told(line), is, "{line}");
        }
    }
}
