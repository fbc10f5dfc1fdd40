//! The runbook of a migration: the text of its steps in Markdown, with a check box for each
//! command. Pure.

use std::fmt::Write as _;

use super::{CLEAN_UP, Migration, Step, render};

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
    for check in &step.checks {
        text.push_str(&item(&check.command, Some(&check.expect)));
    }
    for (title, commands) in [("Commands", &step.commands), ("Way back", &step.rollback)] {
        if !commands.is_empty() {
            _ = writeln!(text, "\n### {title}");
        }
        commands.iter().for_each(|it| text.push_str(&item(it, expected(it))));
    }
    text
}

/// Returns a check box with a command in a block of its own. An action without a command begins
/// with `# ` in a plan.
fn item(command: &str, expected: Option<&str>) -> String {
    if let Some(action) = command.strip_prefix("# ") {
        return format!("\n- [ ] {action}\n");
    }
    let expected = expected.unwrap_or("no error");
    format!("\n- [ ] Expected: {expected}\n\n  ```sh\n  {command}\n  ```\n")
}

/// Outputs of commands, by a part of the command. The first one that matches counts.
const OUTPUTS: [(&str, &str); 19] = [
    (" > ", "no output"),
    ("umask ", "no output"),
    ("mkdir ", "no output"),
    ("diff ", "no output"),
    (" get pods ", "`Running` for a pod on each node of this stage; repeat the command until then"),
    (" get services ", "the reason `Announced` for each Service with endpoints"),
    ("kubectl apply ", "`created`, `configured` or `unchanged` for each object"),
    (" replace ", "`replaced` for each object"),
    (" annotate ", "`annotated` for each Service"),
    (" label ", "`labeled`, `unlabeled` or `not labeled` for each object"),
    (" scale ", "`scaled`"),
    (" wait --for=delete ", "`condition met`, or no output if no pod is left"),
    (" wait ", "`condition met` for each object"),
    (" rollout status ", "`successfully rolled out`"),
    (" patch ", "`patched`, or `patched (no change)`"),
    (" set env ", "`env updated`"),
    (" delete ", "`deleted` for each object that exists"),
    ("helm uninstall ", "`uninstalled`"),
    ("helm ", "`STATUS: deployed`"),
];

/// Returns the expected output of a command.
fn expected(command: &str) -> Option<&'static str> {
    OUTPUTS.into_iter().find(|(part, _)| command.contains(part)).map(|(_, output)| output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_a_block_and_an_action_has_none() {
        let block = "\n- [ ] Expected: `scaled`\n\n  ```sh\n  kubectl scale x\n  ```\n";
        assert_eq!(item("kubectl scale x", expected("kubectl scale x")), block);
        assert_eq!(item("# restart the host", None), "\n- [ ] restart the host\n");
    }

    #[test]
    fn the_point_of_no_return_is_before_the_deletion() {
        let step =
            |id| Step::new(id, "Title", "none").run("kubectl delete x").undo("kubectl get x");
        let migration = Migration::default().with_steps(vec![step("stop"), step(CLEAN_UP)]);
        let text = runbook(&migration);
        let [first, rest] =
            ["## Stage 1: Title", "**Point of no return.**"].map(|it| text.find(it));
        assert!(first.is_some() && first < rest && rest < text.find("## Stage 2"), "{text}");
        assert_eq!(text.matches("### Way back").count(), 2);
    }
}
