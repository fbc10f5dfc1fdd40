//! Completion of `kubectl ferrolb` by kubectl. kubectl runs the program under the name
//! `kubectl_complete-ferrolb`, with the words after `kubectl ferrolb`, the last of which is
//! incomplete. The program prints one candidate per line, and then a directive of kubectl's library
//! cobra. Pure.

use std::ffi::OsStr;
use std::path::Path;

use clap::{Arg, Command, CommandFactory as _};

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

/// Returns the candidates for the last word, and the directive.
#[must_use]
pub fn candidates(words: &[String]) -> String {
    let (last, before) =
        words.split_last().map_or(("", words), |(last, rest)| (last.as_str(), rest));
    let mut root = Args::command();
    root.build();
    let (mut command, mut option) = (&root, None);
    for word in before {
        if option.take().is_some() {
            continue;
        }
        option = command.get_arguments().find(|it| takes_value(it) && has_name(it, word));
        command = command.find_subcommand(word).filter(|_| option.is_none()).unwrap_or(command);
    }
    let found = match option {
        Some(option) => values(option),
        None if last.starts_with('-') => options(command),
        None => {
            let subcommands = command.get_subcommands().filter(|it| it.get_name() != "help");
            let names = subcommands.map(|it| it.get_name().to_owned());
            names.chain(command.get_positionals().flat_map(values)).collect()
        }
    };
    let mut lines: Vec<_> = found.into_iter().filter(|it| it.starts_with(last)).collect();
    lines.push(if lines.is_empty() { FILES } else { NO_FILES }.to_owned());
    lines.join("\n") + "\n"
}

fn takes_value(option: &Arg) -> bool {
    option.get_action().takes_values() && !option.is_positional()
}

fn has_name(option: &Arg, word: &str) -> bool {
    let is_long = |name: &str| word.strip_prefix("--") == Some(name);
    let is_short = |name: char| word.strip_prefix('-').is_some_and(|it| it == name.to_string());
    option.get_long().is_some_and(is_long) || option.get_short().is_some_and(is_short)
}

fn options(command: &Command) -> Vec<String> {
    command.get_arguments().filter_map(Arg::get_long).map(|name| format!("--{name}")).collect()
}

fn values(argument: &Arg) -> Vec<String> {
    argument.get_possible_values().iter().map(|it| it.get_name().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> String {
        candidates(&words.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>()).replace('\n', " ")
    }

    #[test]
    fn subcommands_options_and_values_are_completed() {
        assert_eq!(of(&[""]), "status why plan drain migrate check init completion :4 ");
        assert_eq!(of(&["mi"]), "migrate :4 ");
        assert_eq!(of(&["migrate", "ku"]), "kube-vip :4 ");
        assert_eq!(of(&["status", "-o", ""]), "json wide :4 ");
        assert_eq!(of(&["status", "--output", "w"]), "wide :4 ");
        assert_eq!(of(&["--context", "status", "che"]), "check :4 ");
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
