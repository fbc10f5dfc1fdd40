//! The Markdown parser of all tests: the texts, headings, links and code blocks of a page. Pure.

mod block;
mod marker;
mod reader;

pub use block::{Block, BlockError, SHELL, YAML};
pub use marker::{Marker, Place, Topology};

use anyhow::{Context, Result};

/// Markup around a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextKind {
    /// A heading with its level, from 1 to 6.
    Heading(usize),
    /// A paragraph, or an item of a list without its nested lists.
    Prose,
    TableCell,
}

/// A text without markup: a link is its text, inline code is one word.
#[derive(Clone, Debug)]
pub struct Text {
    pub kind: TextKind,
    /// Number of the first line.
    pub line: usize,
    pub text: String,
    /// The text with an empty word for inline code, which has names of fields, files and metrics.
    pub without_code: String,
}

/// Target of a link, of an image, or of an attribute `href` or `src` in HTML.
#[derive(Clone, Debug)]
pub struct Link {
    pub line: usize,
    pub target: String,
}

/// A Markdown page. All lines are counted from 1.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Path from the repository's root, such as `docs/concepts.md`.
    pub path: String,
    pub texts: Vec<Text>,
    pub links: Vec<Link>,
    /// Code blocks, without those that are the output of another one.
    pub blocks: Vec<Block>,
    /// Lines that prose may wrap: all but those of code blocks and tables, with their numbers.
    pub lines: Vec<(usize, String)>,
}

impl Page {
    /// Parses Markdown as GitHub and mdBook do. Never fails: [`Block::error`] has the error of a
    /// block.
    pub fn parse(path: &str, text: &str) -> Self {
        reader::read(path, text)
    }

    pub fn headings(&self) -> impl Iterator<Item = &Text> {
        self.texts.iter().filter(|text| matches!(text.kind, TextKind::Heading(_)))
    }

    /// Returns the first block of commands that contains `command`.
    ///
    /// # Errors
    /// If the page has no such block.
    pub fn commands_with(&self, command: &str) -> Result<&Block> {
        let mut blocks = self.blocks.iter().filter(|block| block.language == SHELL);
        let found = blocks.find(|block| block.text.contains(command));
        found.with_context(|| format!("{} has no commands with {command:?}", self.path))
    }

    /// Returns the first block that runs in this topology and contains `part`.
    ///
    /// # Errors
    /// If the page has no such block.
    pub fn block_with(&self, topology: Topology, part: &str) -> Result<&Block> {
        let mut blocks = self.blocks_for(topology).into_iter();
        let found = blocks.find(|block| block.text.contains(part));
        found.with_context(|| format!("{} has no block with {part:?} in {topology}", self.path))
    }

    /// Returns whether the page has a block for this topology.
    pub fn needs(&self, topology: Topology) -> bool {
        self.blocks.iter().any(|block| block.runs_in(topology))
    }

    /// Returns the blocks that run together in this topology, in their order.
    pub fn blocks_for(&self, topology: Topology) -> Vec<&Block> {
        let runs = |block: &&Block| topology.includes().iter().any(|one| block.runs_in(*one));
        self.blocks.iter().filter(runs).collect()
    }

    /// Returns the position of a block, such as `README.md:12`.
    pub fn position(&self, block: &Block) -> String {
        format!("{}:{}", self.path, block.line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_into_texts_links_and_blocks() {
        let text = "# The `kubectl get` page\n\nOne [link](a.md#b)\nand `two words`.\n\n\
                    - item\n  - nested ![no text](c.svg)\n\n<!-- run: lab -->\n```sh\nls\n```\n\n\
                    | head |\n|---|\n| cell |\n\n<a href=\"d.md\">\n";
        let page = Page::parse("p.md", text);
        let texts: Vec<_> =
            page.texts.iter().map(|text| (text.kind, text.line, text.text.as_str())).collect();
        let expected = [
            (TextKind::Heading(1), 1, "The kubectl\u{a0}get page"),
            (TextKind::Prose, 3, "One link and two\u{a0}words."),
            (TextKind::Prose, 6, "item"),
            (TextKind::Prose, 7, "nested"),
            (TextKind::TableCell, 14, "head"),
            (TextKind::TableCell, 16, "cell"),
        ];
        assert_eq!(texts, expected);
        assert_eq!(page.texts[1].without_code, "One link and .");
        let links: Vec<_> =
            page.links.iter().map(|link| (link.line, link.target.as_str())).collect();
        assert_eq!(links, [(3, "a.md#b"), (7, "c.svg"), (18, "d.md")]);
        let [block] = &*page.blocks else { panic!("{:?}", page.blocks) };
        assert_eq!((block.line, &*block.language, &*block.text), (10, "sh", "ls\n"));
        assert_eq!(block.marker, Some(Marker::Run(Place::Client(Topology::Lab))));
        let lines: Vec<_> = page.lines.iter().map(|(number, _)| *number).collect();
        assert_eq!(lines, [1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 17, 18]);
    }

    #[test]
    fn blocks_are_selected_by_their_topology_and_commands() {
        let block = |marker: &str, language: &str, text: &str| {
            format!("<!-- {marker} -->\n```{language}\n{text}\n```\n")
        };
        let text = [
            block("run: lab", "yaml", "kind: ls"),
            block("run: bgp", "sh", "ls b"),
            block("run: kubeadm", "sh", "ls c"),
            block("run: router", "sh", "ls router"),
            block("run: node", "sh", "ls node"),
            block("not run: needs d", "sh", "ls d"),
        ];
        let page = Page::parse("p.md", &text.concat());
        for (topology, needs, expect) in [
            (Topology::Install, false, ""),
            (Topology::Lab, true, "p.md:2 p.md:18"),
            (Topology::Bgp, true, "p.md:2 p.md:6 p.md:14 p.md:18"),
            (Topology::Kubeadm, true, "p.md:2 p.md:10 p.md:18"),
        ] {
            let blocks = page.blocks_for(topology).into_iter();
            let positions: Vec<_> = blocks.map(|block| page.position(block)).collect();
            assert_eq!((page.needs(topology), &*positions.join(" ")), (needs, expect));
        }
        let position = |command| page.commands_with(command).map(|block| page.position(block));
        assert_eq!(position("ls").unwrap(), "p.md:6");
        assert_eq!(position("kind").unwrap_err().to_string(), "p.md has no commands with \"kind\"");
    }
}
