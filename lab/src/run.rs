//! Runs a tool to completion: `ip`, `go`, `cargo`, `apt-get`, `openssl`. An error contains the
//! tool, its arguments and the end of its output.

use anyhow::{Context, Result, bail};
use std::io::Write;
use std::process::{Command, Output, Stdio};

/// Number of output lines of a failed tool to show.
const LAST_LINES: usize = 30;

/// Runs `command` without input and returns its output.
///
/// # Errors
/// If the tool cannot be started, or fails.
pub fn run(command: &mut Command) -> Result<String> {
    run_checked(command, |command| command.stdin(Stdio::null()).output())
}

/// Runs `command` like [`run`], with `input` as its standard input.
///
/// # Errors
/// See [`run`].
pub fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    run_checked(command, |command| {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        if let Some(mut pipe) = child.stdin.take() {
            // A tool that does not read all input has failed. Its own message is better than that
            // of the broken pipe.
            let _ = pipe.write_all(input.as_bytes());
        }
        child.wait_with_output()
    })
}

/// Runs `ip` with a batch of commands, in a network namespace or the root one.
///
/// # Errors
/// See [`run`]; `ip` reports the failed line.
pub fn ip_batch(namespace: Option<&str>, batch: &str) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(namespace) = namespace {
        command.args(["-n", namespace]);
    }
    run_with_input(command.args(["-batch", "-"]), batch)
        .with_context(|| format!("the batch was:\n{batch}"))?;
    Ok(())
}

/// Runs `ip` with a batch of commands in the root network namespace. A command that fails stops no
/// later one.
///
/// # Errors
/// See [`run`]; `ip` reports the failed lines.
pub fn ip_batch_to_its_end(batch: &str) -> Result<()> {
    run_with_input(Command::new("ip").args(["-force", "-batch", "-"]), batch)
        .with_context(|| format!("the batch was:\n{batch}"))?;
    Ok(())
}

fn run_checked(
    command: &mut Command,
    execute: impl FnOnce(&mut Command) -> std::io::Result<Output>,
) -> Result<String> {
    let name = command_line(command);
    let output = execute(command).with_context(|| format!("cannot start `{name}`"))?;
    if !output.status.success() {
        bail!("`{name}` failed ({}):\n{}", output.status, output_tail(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Returns the program and the arguments of a command, separated by spaces.
fn command_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn output_tail(output: &Output) -> String {
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    last_lines(&text, LAST_LINES)
}

/// Returns the last `count` lines of `text`.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_tool_is_reported_with_its_last_output() {
        let failed =
            run(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err().to_string();
        assert!(
            failed.starts_with("`sh -c echo why >&2; exit 3` failed (exit status: 3):\nwhy"),
            "{failed}"
        );
        let missing = run(&mut Command::new("no-such-tool")).unwrap_err().to_string();
        assert_eq!(missing, "cannot start `no-such-tool`");
    }

    #[test]
    fn a_tool_reads_its_input() {
        assert_eq!(run_with_input(&mut Command::new("cat"), "a\nb\n").unwrap(), "a\nb\n");
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        for (text, count, expect) in [("a\nb\nc", 2, "b\nc"), ("a", 2, "a"), ("", 2, "")] {
            assert_eq!(last_lines(text, count), expect);
        }
    }
}
