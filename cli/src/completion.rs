//! Completion of `kubectl ferrolb` by kubectl. kubectl runs the program under the name
//! `kubectl_complete-ferrolb`, with the words after `kubectl ferrolb`, the last of which is
//! incomplete. The program prints one candidate per line, and then a directive of kubectl's library
//! cobra. Pure.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::engine::complete;

use crate::args::Args;

/// Name under which kubectl runs the program for a completion.
const NAME: &str = "kubectl_complete-ferrolb";
/// Directives of cobra: the shell completes file names, or it does not.
const FILES: &str = ":0";
const NO_FILES: &str = ":4";

/// Returns whether a path is the name for a completion.
#[must_use]
pub fn is_completion(program: &OsStr) -> bool {
    Path::new(program).file_stem().is_some_and(|name| name == NAME)
}

/// Returns the candidates for the last word, and the directive. The shell completes paths itself.
#[must_use]
pub fn candidates(words: &[String]) -> String {
    let position = words.len().max(1);
    let mut line: Vec<OsString> = vec![NAME.into()];
    line.extend(words.iter().map(OsString::from));
    line.resize(position + 1, OsString::new());
    // Without a directory, the engine reads none.
    let found = complete(&mut Args::command(), line, position, None).unwrap_or_default();
    let shown = found.iter().filter(|it| !it.is_hide_set());
    let mut lines: Vec<_> = shown.map(|it| it.get_value().to_string_lossy().into_owned()).collect();
    lines.push(if lines.is_empty() { FILES } else { NO_FILES }.to_owned());
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> String {
        candidates(&words.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>()).replace('\n', " ")
    }

    #[test]
    fn subcommands_options_and_values_are_completed() {
        assert!(of(&[""]).starts_with("status why plan drain migrate check init "));
        assert_eq!(of(&["mi"]), "migrate :4 ");
        assert_eq!(of(&["migrate", "ku"]), "kube-vip :4 ");
        assert_eq!(of(&["status", "-o", ""]), "json wide :4 ");
        assert_eq!(of(&["status", "--output", "w"]), "wide :4 ");
        assert_eq!(of(&["status", "--output=w"]), "--output=wide :4 ");
        assert_eq!(of(&["--context", "lab", "che"]), "check :4 ");
        assert_eq!(of(&["check", "--st"]), "--strict :4 ");
        assert_eq!(of(&["completion", "ba"]), "bash :4 ");
    }

    #[test]
    fn files_are_completed_by_the_shell() {
        assert_eq!(of(&["plan", "-f", "po"]), ":0 ");
        assert_eq!(of(&[]), of(&[""]));
    }

    #[test]
    fn the_name_of_the_program_selects_the_completion() {
        assert!(is_completion("/usr/bin/kubectl_complete-ferrolb".as_ref()));
        assert!(!is_completion("/usr/bin/kubectl-ferrolb".as_ref()));
        assert!(!is_completion("".as_ref()));
    }
}
