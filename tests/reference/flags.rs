//! `docs/reference/flags.md`: the flags of both components, as their parsers define them.

use clap::{Arg, Args, Command, CommandFactory};
use ferrolb_runtime::flags::{CommonFlags, TIME_HELP};

use crate::generated::{self, code, head, one_line, paragraph, table};
use crate::{COMMAND, root};

const FILE: &str = "docs/reference/flags.md";
const SOURCE: &str = "the flags of both components";
const INTRODUCTION: &str = "\
This page lists the flags of the controller and the speaker. Each flag is also an environment \
variable, and the command line has priority over it. Both components read the credentials of \
`KUBECONFIG`, or of their pod's ServiceAccount.";
/// Section with the commands that change flags.
const CHANGES: &str = "
## Changes of flags

With manifests, set environment variables. The rollout replaces one speaker at a time:

<!-- run: kubeadm -->
```sh
kubectl -n ferrolb-system set env daemonset/speaker FERROLB_HELLO_INTERVAL=200ms FERROLB_HELLO_MISSES=5
kubectl -n ferrolb-system rollout status daemonset/speaker
```

```text
daemonset.apps/speaker env updated
...
daemon set \"speaker\" successfully rolled out
```

A hyphen after the name removes a variable, and the default applies again:

<!-- run: kubeadm -->
```sh
kubectl -n ferrolb-system set env daemonset/speaker FERROLB_HELLO_INTERVAL- FERROLB_HELLO_MISSES-
kubectl -n ferrolb-system rollout status daemonset/speaker
```

```text
daemonset.apps/speaker env updated
...
daemon set \"speaker\" successfully rolled out
```

For the controller, write `deployment/controller`. With Helm, write flags into the values
`speaker.extraArgs` and `controller.extraArgs`, and the log level into `speaker.logLevel` and
`controller.logLevel`.
";
/// Maximum length of a default in a table, in bytes. The page lists the words of a longer one.
const DEFAULT_LENGTH_MAX: usize = 60;

/// Returns the flag's default, with a comma between two values.
fn default(arg: &Arg) -> String {
    let values = arg.get_default_values().iter();
    values.map(|value| value.to_string_lossy().into_owned()).collect::<Vec<_>>().join(",")
}

/// Returns the flag with the form of its value: `--log-level error|warn`.
fn usage(arg: &Arg) -> String {
    let values: Vec<_> =
        arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    let names = arg.get_value_names().unwrap_or_default();
    let form = if values.is_empty() {
        names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    } else {
        values.join("|")
    };
    format!("{} {form}", name(arg))
}

fn name(arg: &Arg) -> String {
    format!("--{}", arg.get_long().unwrap_or_default())
}

fn row(arg: &Arg) -> Vec<String> {
    let default = default(arg);
    let default = if default.len() > DEFAULT_LENGTH_MAX {
        format!("[list](#default-of-{})", name(arg))
    } else {
        code(&default)
    };
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let aliases = arg.get_all_aliases().unwrap_or_default();
    let aliases = aliases.iter().map(|alias| format!(" Also accepted as `--{alias}`."));
    let environment = arg.get_env().map(|name| name.to_string_lossy()).unwrap_or_default();
    let description = format!("{}.{}", one_line(&help), aliases.collect::<String>());
    vec![code(&usage(arg)), code(&environment), default, description]
}

/// Returns a section with a table of flags, and the long defaults.
fn section(heading: &str, args: &[&Arg]) -> String {
    let columns = ["Flag", "Environment variable", "Default", "Description"];
    let rows: Vec<_> = args.iter().map(|arg| row(arg)).collect();
    let mut text = format!("\n## {heading}\n{}", table(&columns, &rows));
    for arg in args.iter().filter(|arg| default(arg).len() > DEFAULT_LENGTH_MAX) {
        let words = default(arg).replace(',', "\n");
        text.push_str(&format!("\n### Default of `{}`\n\n```text\n{words}\n```\n", name(arg)));
    }
    text
}

/// Returns the flags of a component that the other one does not have.
fn own_flags<'a>(component: &'a Command, common: &Command) -> Vec<&'a Arg> {
    let is_common = |arg: &&Arg| common.get_arguments().any(|it| it.get_id() == arg.get_id());
    component.get_arguments().filter(|arg| !is_common(arg)).collect()
}

/// Returns the page.
fn generate() -> String {
    let common = CommonFlags::augment_args(Command::new("common"));
    let controller = ferrolb_controller::flags::Flags::command();
    let speaker = ferrolb_speaker::flags::Flags::command();
    let mut page = head("Flags", SOURCE, COMMAND, INTRODUCTION);
    page.push_str(&paragraph(TIME_HELP));
    page.push_str(CHANGES);
    let both: Vec<_> = common.get_arguments().collect();
    page.push_str(&section("Flags of both components", &both));
    page.push_str(&section("Flags of the controller", &own_flags(&controller, &common)));
    page.push_str(&section("Flags of the speaker", &own_flags(&speaker, &common)));
    page
}

#[test]
fn the_page_of_the_flags_is_current() {
    generated::check(&root(), FILE, &generate(), COMMAND);
}
