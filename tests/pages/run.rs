//! Runs the commands of pages, and compares their outputs with those that the pages show.

use crate::compare::{ANY, differences};
use crate::{functions, reports, to_lab};
use anyhow::{Context, Result, anyhow, bail, ensure};
use ferrolb_lab::cluster::kubeadm::machine;
use ferrolb_lab::scenario::step;
use ferrolb_lab::setup::{installers, repository};
use ferrolb_lab::{Lab, wait};
use ferrolb_markdown::{Block, Page, Place, Topology, YAML};
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Maximum time until commands that only read show the expected output, on a busy machine.
const OUTPUT_MAX: Duration = Duration::from_secs(15);
/// Maximum time of the commands of one block in seconds, as an argument of `timeout`.
const BLOCK_SECONDS_MAX: &str = "180";
/// Exit status of `timeout` for commands that did not end.
const TIMED_OUT: i32 = 124;
/// Directory in which the commands run: its entries are those of the repository, and the files that
/// the commands write.
const WORK_FOLDER: &str = "pages";
/// File in that directory with the output of the last block.
const OUTPUT_FILE: &str = ".output";
/// Directory of build results, which is not linked.
const TARGET: &str = "target";
/// Commands before and after a block, which keep variables from block to block.
const LOAD_VARIABLES: &str = "[ ! -e .variables ] || . ./.variables";
const SAVE_VARIABLES: &str = "set >.variables";
/// Configuration of curl, so that curl prints no progress in an output, and ends.
const CURL_FILE: &str = ".curlrc";
const CURL_CONFIG: &str = "no-progress-meter\nmax-time = 2\n";
/// Words of commands that change something. Such commands run once, as do those that write a file
/// or continue in the background.
const CHANGES: [&str; 22] = [
    "annotate",
    "apply",
    "autoscale",
    "cordon",
    "create",
    "delete",
    "drain",
    "edit",
    "expose",
    "helm",
    "install",
    "label",
    "patch",
    "replace",
    "restart",
    "run",
    "scale",
    "set",
    "taint",
    "uncordon",
    "undo",
    "upgrade",
];

/// Result of the commands of a block.
struct Finished {
    success: bool,
    /// Standard output and error in one text, as in a terminal.
    output: String,
}

/// Directory for the commands of pages, and the function that runs them.
pub struct Runner<'a> {
    folder: PathBuf,
    command: Box<dyn Fn() -> Result<Command> + 'a>,
    lab: Option<&'a Lab>,
}

impl<'a> Runner<'a> {
    /// Returns a runner on the hosts of a lab.
    ///
    /// # Errors
    /// If the directory for the commands cannot be created.
    pub fn in_lab(lab: &'a Lab) -> Result<Self> {
        let folder = lab.state().file(WORK_FOLDER);
        create_folder(&folder, Some(&machine::folder(&lab.state().name).join("images")))?;
        Ok(Self { folder, command: Box::new(|| lab.client_command("timeout")), lab: Some(lab) })
    }

    /// Returns a runner without a cluster, in a directory that does not exist yet.
    ///
    /// # Errors
    /// See [`Self::in_lab`].
    pub fn without_cluster(folder: PathBuf) -> Result<Self> {
        create_folder(&folder, None)?;
        let command = || {
            installers::command_with("timeout", &[installers::helm()?, installers::kustomize()?])
        };
        Ok(Self { folder, command: Box::new(command), lab: None })
    }

    /// Runs the blocks of a page for a topology in their order. Returns the number of blocks.
    ///
    /// # Errors
    /// At the first block that fails, or whose output differs from that of the page.
    pub fn page(&self, page: &Page, topology: Topology) -> Result<usize> {
        let blocks = page.blocks_for(topology);
        blocks.iter().try_for_each(|block| self.block(page, block))?;
        Ok(blocks.len())
    }

    /// Runs one block, and compares the output with the one that the page shows. Commands that
    /// change nothing are repeated until they succeed with that output, at most for
    /// [`OUTPUT_MAX`].
    ///
    /// # Errors
    /// If the commands fail, or their output differs; with the position, the commands and the
    /// differences.
    pub fn block(&self, page: &Page, block: &Block) -> Result<()> {
        step(&format!("{} ({})", page.position(block), block.heading), || {
            let commands = to_lab(&commands(block));
            let expected = block.output.as_deref().map(to_lab);
            let run = || {
                self.run(block.place(), &commands)
                    .and_then(|done| check(expected.as_deref(), &done))
            };
            let result = if changes_something(&commands) {
                run()
            } else {
                wait::until("the output of the page", OUTPUT_MAX, || run().map(Some))
            };
            result.map_err(|error| anyhow!("{error:#}\nThe commands are:\n{commands}"))
        })
    }

    fn run(&self, place: Option<Place>, commands: &str) -> Result<Finished> {
        let (host, functions) = functions::host_and_functions(place, self.lab)?;
        // A file and not a pipe, because a process in the background would keep a pipe open.
        let script =
            format!("exec 2>&1\n{LOAD_VARIABLES}\n{functions}\n{commands}\n{SAVE_VARIABLES}");
        let path = self.folder.join(OUTPUT_FILE);
        let mut command = (self.command)()?;
        command.args([BLOCK_SECONDS_MAX, "sh", "-euc", &script]).current_dir(&self.folder);
        command.env("CURL_HOME", &self.folder).stdin(Stdio::null()).stdout(File::create(&path)?);
        let status = match self.lab {
            Some(lab) => lab.within(&host, || command.status())?,
            None => command.status(),
        }?;
        let output = fs::read_to_string(&path).context("the output is not UTF-8")?;
        let output = without_log_lines(&output);
        ensure!(
            status.code() != Some(TIMED_OUT),
            "the commands did not end within {BLOCK_SECONDS_MAX} s:\n{output}"
        );
        Ok(Finished { success: status.success(), output })
    }
}

/// Removes the log lines of Kubernetes' client library, such as `I0102 03:04:05.678 ...`: kubectl
/// and Helm print them now and then.
fn without_log_lines(output: &str) -> String {
    let is_log_line = |line: &str| {
        let shape = line.get(..8).unwrap_or_default().replace(|c: char| c.is_ascii_digit(), "0");
        ["I0000 00", "W0000 00", "E0000 00"].contains(&shape.as_str())
    };
    output.split_inclusive('\n').filter(|line| !is_log_line(line)).collect()
}

/// Creates the directory for the commands, with links to the entries of the repository. Archives of
/// images are at the path to which `cargo lab images` writes them, if there are any.
fn create_folder(folder: &Path, images: Option<&Path>) -> Result<()> {
    if folder.exists() {
        return Ok(());
    }
    let target = folder.join(TARGET);
    fs::create_dir_all(&target).with_context(|| format!("{}", folder.display()))?;
    for entry in fs::read_dir(repository())? {
        let entry = entry?;
        if entry.file_name() != TARGET {
            symlink(entry.path(), folder.join(entry.file_name()))?;
        }
    }
    if let Some(images) = images.filter(|images| images.exists()) {
        symlink(images, target.join("images"))?;
    }
    Ok(fs::write(folder.join(CURL_FILE), CURL_CONFIG)?)
}

/// Returns the commands of a block. An object is applied.
fn commands(block: &Block) -> String {
    if block.language == YAML {
        format!("kubectl apply -f - <<'END_OF_YAML'\n{}END_OF_YAML\n", block.text)
    } else {
        block.text.clone()
    }
}

/// Checks the result of commands. Commands may fail only if the page shows their whole output with
/// the error. If the page shows no output, they print only reports of changes.
fn check(expected: Option<&str>, finished: &Finished) -> Result<()> {
    let Finished { success, output } = finished;
    let Some(expected) = expected else {
        ensure!(*success, "the commands failed:\n{output}");
        let hidden = reports::without_reports(output);
        ensure!(hidden.is_empty(), "the page shows no output, and the commands print:\n{hidden}");
        return Ok(());
    };
    if let Some(differences) = differences(expected, &to_lab(output)) {
        bail!("the output differs from that of the page:\n{differences}");
    }
    let shows_all = expected.lines().all(|line| line.trim() != ANY);
    ensure!(*success || shows_all, "the commands failed:\n{output}");
    Ok(())
}

/// Returns whether the commands of a block change something.
pub(crate) fn changes(block: &Block) -> bool {
    changes_something(&commands(block))
}

fn changes_something(commands: &str) -> bool {
    let mut words = commands.split_whitespace();
    words.any(|word| CHANGES.contains(&word) || word.contains('>') || word == "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_that_change_something_are_recognized() {
        for (commands, expect) in [
            ("kubectl get service web", false),
            ("kubectl -n ferrolb-system describe fpool first | grep Valid", false),
            ("kubectl wait --for=delete pod web", false),
            ("curl http://192.168.1.240", false),
            ("kubectl get svc\nkubectl delete svc web", true),
            ("kubectl apply -f examples/first-pool.yaml", true),
            ("kubectl -n ferrolb-system annotate service web a=b", true),
            ("kubectl rollout restart deployment web", true),
            ("kubectl rollout status deployment web", false),
            ("kubectl get fpool -A -o yaml > backup.yaml", true),
            ("kubectl port-forward service/web 8080:80 & sleep 2", true),
        ] {
            assert_eq!(changes_something(commands), expect, "{commands}");
        }
    }

    #[test]
    fn log_lines_of_the_client_library_are_removed() {
        let output = "a\nI1123 23:39:02.035365    7928 reflector.go:664] watch ended\nI1123\nb";
        assert_eq!(without_log_lines(output), "a\nI1123\nb");
    }

    #[test]
    fn outputs_that_differ_and_errors_that_the_page_hides_are_refused() {
        let finished = |success, output: &str| Finished { success, output: output.to_owned() };
        for (expected, finished, valid) in [
            (None, finished(true, ""), true),
            (None, finished(true, "service/web created\n"), true),
            (None, finished(true, "service/web created\nany\n"), false),
            (None, finished(false, ""), false),
            (Some("a"), finished(true, "a\n"), true),
            (Some("error: refused"), finished(false, "error: refused\n"), true),
            (Some("a\n...\n"), finished(true, "a\nb\n"), true),
            (Some("a\n...\n"), finished(false, "a\nerror: refused\n"), false),
            (Some("a"), finished(true, "b\n"), false),
        ] {
            assert_eq!(check(expected, &finished).is_ok(), valid, "{}", finished.output);
        }
    }

    #[test]
    fn commands_run_without_a_cluster_and_the_error_has_the_position() {
        let folder = std::env::temp_dir().join(format!("ferrolb-pages-{}", std::process::id()));
        create_folder(&folder, None).unwrap();
        let command = || Ok(Command::new("timeout"));
        let runner = Runner { folder: folder.clone(), command: Box::new(command), lab: None };
        let text = "# Files\n<!-- run: install -->\n```sh\necho one > set; ls README.md set\n```\n```text\nREADME.md\nall\n```\n";
        let page = Page::parse("docs/README.md", text);
        let error = format!("{:#}", runner.page(&page, Topology::Install).unwrap_err());
        fs::remove_dir_all(folder).unwrap();
        assert_eq!(
            error,
            "docs/README.md:3 (Files): the output differs from that of the page:\n  README.md\n- all\n+ set\n\nThe commands are:\necho one > set; ls README.md set\n"
        );
    }
}
