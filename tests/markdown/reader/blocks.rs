//! Reads the code blocks of a page, and joins commands with the output that follows them.

use crate::block::{Block, BlockError, SHELL};
use crate::marker;
use pulldown_cmark::CodeBlockKind;
use std::ops::Range;

/// Language of the outputs of commands.
const OUTPUT: &str = "text";
/// The only text between commands and their output.
const OUTPUT_LEAD: &str = "The output is:";
/// Characters before a fence in a list or a quote.
const INDENTATION: [char; 2] = [' ', '>'];

/// A block whose content is being read.
struct OpenBlock {
    block: Block,
    /// Offset behind the closing fence.
    end: usize,
    follows_commands: bool,
}

/// State while the blocks of a page are read.
pub(crate) struct BlockReader<'a> {
    source: &'a str,
    /// The last heading.
    heading: &'a str,
    open: Option<OpenBlock>,
    /// Offset behind the last block if it contains commands.
    commands_end: Option<usize>,
    blocks: Vec<Block>,
}

impl<'a> BlockReader<'a> {
    pub(crate) fn new(source: &'a str) -> Self {
        Self { source, heading: "", open: None, commands_end: None, blocks: Vec::new() }
    }

    /// Reads the heading at `range`.
    pub(crate) fn heading(&mut self, range: Range<usize>) {
        let line = self.source[range].lines().next().unwrap_or_default();
        self.heading = line.trim_start_matches('#').trim();
    }

    /// Begins the block at `range`, which includes its fences. `line` is the number of its first
    /// line.
    pub(crate) fn start(&mut self, kind: &CodeBlockKind<'_>, line: usize, range: Range<usize>) {
        let source = &self.source[range.clone()];
        let (language, has_end) = match kind {
            CodeBlockKind::Fenced(info) => (info.split_whitespace().next(), is_closed(source)),
            CodeBlockKind::Indented => (None, true),
        };
        let before = line.checked_sub(2).and_then(|index| self.source.lines().nth(index));
        let marker = marker::parse(before.unwrap_or_default());
        let is_lead = |line: &str| line.trim().is_empty() || line.trim() == OUTPUT_LEAD;
        let between = self.commands_end.take().map(|end| &self.source[end..range.start]);
        let block = Block {
            line,
            language: language.unwrap_or_default().to_owned(),
            heading: self.heading.to_owned(),
            error: marker.as_ref().err().cloned().or((!has_end).then_some(BlockError::NoEnd)),
            marker: marker.ok().flatten(),
            ..Block::default()
        };
        let follows_commands = between.is_some_and(|text| text.lines().all(is_lead));
        self.open = Some(OpenBlock { block, end: range.end, follows_commands });
    }

    /// Returns the content of the block that is being read.
    pub(crate) fn open_text(&mut self) -> Option<&mut String> {
        self.open.as_mut().map(|open| &mut open.block.text)
    }

    /// Ends the block that is being read.
    pub(crate) fn end(&mut self) {
        let Some(OpenBlock { mut block, end, follows_commands }) = self.open.take() else { return };
        // A block of YAML that runs is applied by a command.
        let has_commands = block.language == SHELL || block.place().is_some();
        self.commands_end = has_commands.then_some(end);
        let is_output = block.language == OUTPUT && block.error.is_none();
        match self.blocks.last_mut().filter(|_| is_output) {
            Some(commands) if follows_commands => commands.output = Some(block.text),
            Some(commands) if seems_output(commands, &block) => {
                block.error = Some(BlockError::OutputApart);
                self.blocks.push(block);
            }
            _ => self.blocks.push(block),
        }
    }

    pub(crate) fn finish(self) -> Vec<Block> {
        self.blocks
    }
}

/// Returns whether a reader takes `block` for the output of commands that a test runs, although it
/// does not directly follow them.
fn seems_output(commands: &Block, block: &Block) -> bool {
    let same_section = commands.heading == block.heading && block.marker.is_none();
    commands.place().is_some() && commands.output.is_none() && same_section
}

/// Returns whether the last line of a block closes the fence on the first line.
fn is_closed(source: &str) -> bool {
    let mut lines = source.lines().map(|line| line.trim_start_matches(INDENTATION));
    let (Some(opening), Some(closing)) = (lines.next(), lines.next_back()) else { return false };
    let is_fence = |c: char| opening.starts_with(c);
    let (fence, _) = opening.split_at(opening.find(|c| !is_fence(c)).unwrap_or(opening.len()));
    closing.strip_prefix(fence).is_some_and(|rest| rest.trim_end().chars().all(is_fence))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Page;

    fn parsed(text: &str) -> Vec<Block> {
        Page::parse("p.md", text).blocks
    }

    #[test]
    fn a_block_has_its_position_language_and_text() {
        let page = "# Title\n\n1. Step:\n\n   ```yaml\n   a:\n     b: 1\n\n   ```\n\n## Second `part`\n~\n```\nplain\n```\n\n    indented\n";
        let expect = |language: &str, text: &str, line, heading: &str| Block {
            language: language.to_owned(),
            text: text.to_owned(),
            line,
            heading: heading.to_owned(),
            ..Block::default()
        };
        assert_eq!(
            parsed(page),
            [
                expect("yaml", "a:\n  b: 1\n\n", 5, "Title"),
                expect("", "plain\n", 13, "Second `part`"),
                expect("", "indented\n", 17, "Second `part`"),
            ]
        );
    }

    #[test]
    fn an_unknown_marker_or_an_open_block_is_an_error() {
        for (page, line, expect) in [
            ("<!-- run: moon -->\n```sh\n```", 2, "no test runs blocks in \"moon\": "),
            ("<!-- run -->\n```sh\n```", 2, "no test runs blocks in \"\": "),
            ("<!-- runs: lab -->\n```sh\n```", 2, "the marker \"runs: lab\" is unknown: "),
            ("<!-- helm values: a -->\n```\n```", 2, "the marker \"helm values: a\" is unknown: "),
            ("<!-- not run: -->\n```\n```", 2, "the marker \"not run:\" states no reason: "),
            ("<!-- not applied -->\n```\n```", 2, "the marker \"not applied\" states no reason: "),
            ("a\n```sh\nb\n", 2, "the block has no end: "),
            ("````\n```\n", 1, "the block has no end: "),
            ("```", 1, "the block has no end: "),
            ("```sh\n```a", 1, "the block has no end: "),
            ("```sh\n~~~", 1, "the block has no end: "),
            ("- ```sh\n  b\n- c\n", 1, "the block has no end: "),
            ("```sh\nb\n```\n```text\nc\n", 4, "the block has no end: "),
        ] {
            let blocks = parsed(page);
            let error = blocks.iter().find_map(|block| Some((block.line, block.error.as_ref()?)));
            let (found, error) = error.unwrap_or_else(|| panic!("no error: {page}"));
            assert_eq!(found, line, "{page}");
            assert!(error.to_string().starts_with(expect), "{page}: {error}");
            assert!(blocks.iter().all(|block| block.marker.is_none()), "{page}");
        }
        for page in
            ["````sh\n```\n`````\n", "> ```sh\n> a\n> ```\n", "~~~sh\n~~~ \n", "- ```\n  ```"]
        {
            assert_eq!(parsed(page)[0].error, None, "{page}");
        }
    }

    #[test]
    fn an_output_apart_from_commands_that_run_is_an_error() {
        let output = "```text\nok\n```\n";
        for (place, between, expect) in [
            ("<!-- run: lab -->", "Text.\n\n", Some(BlockError::OutputApart)),
            ("<!-- run: lab -->", "", None),
            ("<!-- run: lab -->", "## Heading\n", None),
            ("<!-- run: lab -->", "<!-- not run: another version -->\n", None),
            ("", "Text.\n\n", None),
        ] {
            let found = parsed(&format!("# Page\n{place}\n```sh\nls\n```\n{between}{output}"));
            assert_eq!(found.last().unwrap().error, expect, "{place} {between}");
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
        let found = parsed(&format!("<!-- run: lab -->\n```yaml\nkind: A\n```\n{output}"));
        assert_eq!(found[0].output.as_deref(), Some("ok\n"), "a test applies the block");
        let found = parsed("1. Step:\n\n   ```sh\n   ls\n   ```\n\n   ```text\n   ok\n   ```\n");
        assert_eq!(found[0].output.as_deref(), Some("ok\n"), "both blocks belong to a list");
    }
}
