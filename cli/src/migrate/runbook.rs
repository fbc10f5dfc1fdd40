//! The runbook of a migration: the text of its steps in Markdown, with a check box for each
//! command. Pure.

use std::fmt::Write as _;

use super::{Action, CLEAN_UP, Command, Migration, Step, render};

/// Name of the file.
pub const FILE: &str = "RUNBOOK.md";

/// Introduction to every runbook.
const RULES: &str = "\
Resolve the problems of the prediction first, and plan again. Run all commands in one shell, in this
order. A stage has the same result if it runs twice: repeat a command that fails. Begin a stage when
its checks have the expected output.

**Way back:** undo the stages in reverse order, from the last one that you have begun, by the
commands below \"Way back\".
";

/// Returns the runbook.
#[must_use]
pub fn runbook(migration: &Migration) -> String {
    let mut text = format!("# {}\n\n", migration.title);
    migration.facts.iter().for_each(|fact| _ = writeln!(text, "- {fact}"));
    _ = write!(text, "\n{RULES}\n## Prediction\n\n```text\n{}```\n", render::summary(migration));
    for step in &migration.steps {
        text.push_str(&stage(step));
    }
    text
}

fn stage(step: &Step) -> String {
    let mut text = String::new();
    if step.id == CLEAN_UP {
        text.push_str(
            "\n> **Point of no return.** The stages before can be undone. After the next one, they \
             cannot.\n",
        );
    }
    _ = write!(
        text,
        "\n## Stage {}: {}\n\nEffect on traffic: {}.\n",
        step.number, step.title, step.effect
    );
    if !step.checks.is_empty() {
        text.push_str("\n### Checks\n");
    }
    step.checks.iter().for_each(|it| text.push_str(&block(it)));
    for (title, actions) in [("Commands", &step.commands), ("Way back", &step.rollback)] {
        if !actions.is_empty() {
            _ = writeln!(text, "\n### {title}");
        }
        actions.iter().for_each(|it| text.push_str(&item(it)));
    }
    text
}

/// Returns a check box with an action.
fn item(action: &Action) -> String {
    match action {
        Action::Shell(command) => block(command),
        Action::ByHand(text) => format!("\n- [ ] {text}\n"),
    }
}

/// Returns a check box with a command in a block of its own.
fn block(Command { command, expect, .. }: &Command) -> String {
    format!("\n- [ ] Expected: {expect}\n\n  ```sh\n  {command}\n  ```\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_a_block_and_work_by_hand_has_none() {
        let block = "\n- [ ] Expected: `scaled`\n\n  ```sh\n  # kubectl scale x\n  ```\n";
        assert_eq!(item(&Command::new("# kubectl scale x", "`scaled`").into()), block);
        assert_eq!(item(&Action::ByHand("restart the host".into())), "\n- [ ] restart the host\n");
    }

    #[test]
    fn the_point_of_no_return_is_before_the_deletion() {
        let command = || Command::new("kubectl x", "no error");
        let step = |id| Step::new(id, "Title", "none").run(command()).undo(command());
        let migration = Migration::default().with_steps(vec![step("stop"), step(CLEAN_UP)]);
        let text = runbook(&migration);
        let [first, rest] =
            ["## Stage 1: Title", "**Point of no return.**"].map(|it| text.find(it));
        assert!(first.is_some() && first < rest && rest < text.find("## Stage 2"), "{text}");
        assert_eq!(text.matches("### Way back").count(), 2);
    }
}
