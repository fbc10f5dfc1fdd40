//! A step of a migration: commands with their expected outputs, and work by hand. Pure.

use std::fmt;

use serde::{Serialize, Serializer};

/// A step of a migration.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Position, from 1.
    pub number: usize,
    /// A name that stays the same in all plans.
    pub id: &'static str,
    /// The action.
    pub title: String,
    /// The effect on traffic.
    pub effect: String,
    /// Commands that must have the expected output before the step.
    pub checks: Vec<Command>,
    /// The actions.
    pub commands: Vec<Action>,
    /// Actions that undo the step.
    pub rollback: Vec<Action>,
}

/// A shell command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Command {
    /// The text.
    pub command: String,
    /// The expected output.
    pub expect: &'static str,
    /// True if the text has a path in FerroLB's repository.
    #[serde(skip)]
    pub needs_clone: bool,
}

/// An action of a step. The text of a plan has one line for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A command for the shell.
    Shell(Command),
    /// Work by hand, in words.
    ByHand(String),
}

impl Command {
    /// Returns a command with its expected output.
    #[must_use]
    pub fn new(command: impl Into<String>, expect: &'static str) -> Self {
        Self { command: command.into(), expect, needs_clone: false }
    }

    /// Returns the command with another expected output.
    #[must_use]
    pub fn expecting(self, expect: &'static str) -> Self {
        Self { expect, ..self }
    }
}

impl From<Command> for Action {
    fn from(command: Command) -> Self {
        Self::Shell(command)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shell(command) => f.write_str(&command.command),
            Self::ByHand(text) => write!(f, "# {text}"),
        }
    }
}

impl Serialize for Action {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Step {
    /// Returns a step without commands.
    #[must_use]
    pub fn new(id: &'static str, title: impl Into<String>, effect: impl Into<String>) -> Self {
        Self { id, title: title.into(), effect: effect.into(), ..Self::default() }
    }

    /// Returns whether a command has a path in FerroLB's repository.
    pub(super) fn needs_clone(&self) -> bool {
        let needs = |it: &Action| matches!(it, Action::Shell(command) if command.needs_clone);
        self.commands.iter().chain(&self.rollback).any(needs)
    }

    /// Adds a command that must have the expected output before the step.
    #[must_use]
    pub fn check(mut self, command: Command) -> Self {
        self.checks.push(command);
        self
    }

    /// Adds an action.
    #[must_use]
    pub fn run(self, action: impl Into<Action>) -> Self {
        self.run_all([action])
    }

    /// Adds actions.
    #[must_use]
    pub fn run_all<A: Into<Action>>(mut self, actions: impl IntoIterator<Item = A>) -> Self {
        self.commands.extend(actions.into_iter().map(Into::into));
        self
    }

    /// Adds an action that undoes the step.
    #[must_use]
    pub fn undo(self, action: impl Into<Action>) -> Self {
        self.undo_all([action])
    }

    /// Adds actions that undo the step.
    #[must_use]
    pub fn undo_all<A: Into<Action>>(mut self, actions: impl IntoIterator<Item = A>) -> Self {
        self.rollback.extend(actions.into_iter().map(Into::into));
        self
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Tests compare commands with texts.
    impl<T: AsRef<str>> PartialEq<T> for Command {
        fn eq(&self, text: &T) -> bool {
            self.command == text.as_ref()
        }
    }

    #[test]
    fn the_json_has_a_line_of_text_for_each_action() {
        let scale = || Command::new("kubectl scale x", "`scaled`");
        let step = Step::new("stop", "Stop", "none")
            .check(scale().expecting("no error"))
            .run(scale())
            .undo(Action::ByHand("restart the host".into()));
        let expect = json!({"number": 0, "id": "stop", "title": "Stop", "effect": "none",
            "checks": [{"command": "kubectl scale x", "expect": "no error"}],
            "commands": ["kubectl scale x"], "rollback": ["# restart the host"]});
        assert_eq!(serde_json::to_value(step).unwrap(), expect);
    }
}
