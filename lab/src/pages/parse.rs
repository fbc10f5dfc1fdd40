//! Parses Markdown into its fenced code blocks. Pure.

use super::{Block, Marker, OUTPUT, SHELL, Topology};
use anyhow::{Context, Result, anyhow, bail};

/// Characters of a fence.
const FENCE: &str = "```";
/// The only text between commands and their output.
const OUTPUT_LEAD: &str = "The output is:";

/// A block whose end was not read yet.
struct OpenBlock {
    /// Backticks of the fence; as many or more end the block.
    fence: String,
    indent: usize,
    block: Block,
}

/// Returns the fenced blocks of a page.
///
/// # Errors
/// If a marker is unknown, or a block has no end; with the line number.
pub(super) fn blocks(text: &str) -> Result<Vec<Block>> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open: Option<OpenBlock> = None;
    let (mut heading, mut before) = (String::new(), "");
    let mut may_have_output = false;
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        if let Some(current) = open.as_mut() {
            if !current.ends_with(line) {
                current.push(line);
                continue;
            }
            let Some(OpenBlock { block, .. }) = open.take() else { continue };
            before = "";
            let is_output = may_have_output && block.language == OUTPUT && block.marker.is_none();
            may_have_output = block.language == SHELL;
            match blocks.last_mut().filter(|_| is_output) {
                Some(commands) => commands.output = Some(block.text),
                None => blocks.push(block),
            }
        } else if let Some(started) = OpenBlock::start(line) {
            let marker = marker(before).with_context(|| format!("line {number}"))?;
            may_have_output &= marker.is_none();
            let block = Block { marker, line: number, heading: heading.clone(), ..started.block };
            open = Some(OpenBlock { block, ..started });
        } else {
            if line.starts_with('#') {
                heading = line.trim_start_matches('#').trim().to_owned();
            }
            may_have_output &= line.trim().is_empty() || line.trim() == OUTPUT_LEAD;
            before = line;
        }
    }
    match open {
        Some(open) => bail!("line {}: the block has no end", open.block.line),
        None => Ok(blocks),
    }
}

impl OpenBlock {
    /// Returns the block that begins on `line`, if a fence does.
    fn start(line: &str) -> Option<Self> {
        let trimmed = line.trim_start();
        let info = trimmed.trim_start_matches('`');
        let fence = &trimmed[..trimmed.len() - info.len()];
        let language = info.split_whitespace().next().unwrap_or_default().to_owned();
        let block = Block {
            language,
            text: String::new(),
            marker: None,
            line: 0,
            heading: String::new(),
            output: None,
        };
        let indent = line.len() - trimmed.len();
        fence.starts_with(FENCE).then(|| Self { fence: fence.to_owned(), indent, block })
    }

    fn ends_with(&self, line: &str) -> bool {
        let line = line.trim();
        line.starts_with(&self.fence) && line.trim_start_matches('`').is_empty()
    }

    fn push(&mut self, line: &str) {
        let spaces = line.len() - line.trim_start().len();
        self.block.text.push_str(&line[spaces.min(self.indent)..]);
        self.block.text.push('\n');
    }
}

/// Parses the line before a block. `None`: the line is no HTML comment.
fn marker(line: &str) -> Result<Option<Marker>> {
    let comment = line.trim().strip_prefix("<!--").and_then(|rest| rest.strip_suffix("-->"));
    let Some(comment) = comment.map(str::trim) else { return Ok(None) };
    let (key, value) = comment.split_once(':').unwrap_or((comment, ""));
    let value = value.trim();
    let reason = || match value {
        "" => Err(anyhow!("the marker {comment:?} states no reason")),
        reason => Ok(reason.to_owned()),
    };
    let marker = match key.trim() {
        "run" => {
            let topology = Topology::ALL.into_iter().find(|topology| topology.name() == value);
            Marker::Run(topology.with_context(|| format!("no test runs the topology {value:?}"))?)
        }
        "not run" => Marker::NotRun(reason()?),
        "not applied" => Marker::NotApplied(reason()?),
        "helm values" => Marker::HelmValues,
        other => bail!("the marker {other:?} is unknown"),
    };
    Ok(Some(marker))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the language, the text, the marker, the line, the heading and the output of each
    /// block.
    fn parsed(page: &str) -> Vec<Block> {
        blocks(page).unwrap()
    }

    #[test]
    fn a_block_has_its_position_language_and_text() {
        let page = "# Title\n\n1. Step:\n\n   ```yaml\n   a:\n     b: 1\n\n   ```\n\n## Second `part`\n~\n```\nplain\n```\n";
        let found = parsed(page);
        let expect = |language: &str, text: &str, line, heading: &str| Block {
            language: language.to_owned(),
            text: text.to_owned(),
            marker: None,
            line,
            heading: heading.to_owned(),
            output: None,
        };
        assert_eq!(
            found,
            [
                expect("yaml", "a:\n  b: 1\n\n", 5, "Title"),
                expect("", "plain\n", 13, "Second `part`"),
            ]
        );
    }

    #[test]
    fn only_a_comment_on_the_line_before_a_block_is_its_marker() {
        for (before, expect) in [
            ("<!-- run: lab -->", Some(Marker::Run(Topology::Lab))),
            ("   <!--run: bgp-->", Some(Marker::Run(Topology::Bgp))),
            ("<!-- run: kubeadm -->", Some(Marker::Run(Topology::Kubeadm))),
            ("<!-- run: install -->", Some(Marker::Run(Topology::Install))),
            ("<!-- not run: a: b -->", Some(Marker::NotRun("a: b".to_owned()))),
            ("<!-- not applied: config file -->", Some(Marker::NotApplied("config file".into()))),
            ("<!-- helm values -->", Some(Marker::HelmValues)),
            ("<!-- run: lab -->\n", None),
            ("<!-- any comment -->\ntext", None),
            ("text", None),
        ] {
            let page = format!("{before}\n```sh\nls\n```\n");
            assert_eq!(parsed(&page)[0].marker, expect, "{before}");
        }
    }

    #[test]
    fn an_unknown_marker_or_an_open_block_is_an_error() {
        for (page, expect) in [
            ("<!-- run: moon -->\n```sh\n```", "line 2: no test runs the topology \"moon\""),
            ("<!-- run -->\n```sh\n```", "line 2: no test runs the topology \"\""),
            ("<!-- runs: lab -->\n```sh\n```", "line 2: the marker \"runs\" is unknown"),
            ("<!-- not run: -->\n```\n```", "line 2: the marker \"not run:\" states no reason"),
            ("a\n```sh\nb\n", "line 2: the block has no end"),
            ("````\n```\n", "line 1: the block has no end"),
        ] {
            assert_eq!(format!("{:#}", blocks(page).unwrap_err()), expect, "{page}");
        }
    }

    #[test]
    fn an_output_directly_follows_its_commands() {
        let output = "```text\nok\n```\n";
        for (between, expect) in [
            ("", true),
            ("\n\n", true),
            ("\nThe output is:\n\n", true),
            ("\nAnother text.\n\n", false),
            ("## Heading\n", false),
            ("<!-- not run: an example -->\n", false),
            ("```yaml\na: 1\n```\n", false),
        ] {
            let found = parsed(&format!("```sh\nls\n```\n{between}{output}"));
            let has_output = found[0].output.as_deref() == Some("ok\n");
            assert_eq!((has_output, found.len() == 1), (expect, expect), "{between:?}");
        }
        let found = parsed(&format!("```sh\nls\n```\n{output}{output}"));
        assert_eq!(found.len(), 2, "only one output belongs to the commands");
    }
}
