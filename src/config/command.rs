//! A secret that a command prints: how a system's keyring or a vault is asked.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// A keyring may ask a person to unlock it.
const TIME_MAX: Duration = Duration::from_secs(30);
/// What is read of the output, in bytes.
const OUTPUT_BYTES_MAX: u64 = 16 * 1024;

/// The variable by which the shell is given the command: whoever lists the processes sees no argument.
const COMMAND: &str = "POSTRIDER_COMMAND";

/// What a command prints when `sh` runs it, without the space around it. Blocks for up to 30 s.
///
/// # Errors
/// What went wrong, in words that follow the key's name; neither the command nor what it printed is
/// repeated.
pub fn output_of(command: &str) -> Result<String, String> {
    let mut child = Command::new("sh")
        .args(["-c", &format!("eval \"${COMMAND}\"")])
        .env(COMMAND, command)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // It may print the secret there as well.
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot be run: {error}"))?;
    let stdout = child.stdout.take();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let read = stdout.map(|stdout| stdout.take(OUTPUT_BYTES_MAX).read_to_string(&mut text));
        // Nobody waits any more when the time was up.
        sender
            .send(matches!(read, Some(Ok(_))).then_some(text))
            .ok();
    });
    let read = receiver.recv_timeout(TIME_MAX);
    if read.is_err() {
        child.kill().ok();
    }
    let ended = child.wait().map_err(|error| format!("was lost: {error}"))?;
    match read {
        Err(_) => Err(format!("printed nothing within {} s", TIME_MAX.as_secs())),
        Ok(None) => Err("printed something that is no text".into()),
        Ok(Some(_)) if !ended.success() => Err(format!("failed: {ended}")),
        Ok(Some(text)) if text.trim().is_empty() => Err("printed nothing".into()),
        Ok(Some(text)) => Ok(text.trim().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_prints_is_the_secret_and_nothing_else_is_told() {
        assert_eq!(output_of("printf ' a-secret \n'").unwrap(), "a-secret");
        for (command, why) in [
            ("true", "printed nothing"),
            ("echo a-secret; exit 3", "failed: exit status: 3"),
        ] {
            assert_eq!(output_of(command).unwrap_err(), why);
        }
    }

    #[test]
    fn the_process_list_shows_no_command() {
        let shown = output_of("tr '\\0' ' ' </proc/$$/cmdline; : a-secret").unwrap();
        assert!(
            shown.starts_with("sh -c") && !shown.contains("a-secret"),
            "{shown}"
        );
    }
}
