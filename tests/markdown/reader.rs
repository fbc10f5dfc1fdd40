//! Reads the events of the Markdown library into a page.

mod blocks;

use crate::{Link, Page, Text, TextKind};
use blocks::BlockReader;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use std::ops::Range;

/// Space inside of inline code, which does not separate words.
const CODE_SPACE: char = '\u{a0}';

/// See [`Page::parse`].
pub(crate) fn read(path: &str, text: &str) -> Page {
    let mut reader = Reader::new(path, text);
    let options = Options::ENABLE_TABLES | Options::ENABLE_GFM;
    for (event, range) in Parser::new_ext(text, options).into_offset_iter() {
        reader.read(event, range);
    }
    reader.finish()
}

/// A text that is being read, with and without its inline code.
#[derive(Default)]
struct OpenText {
    text: String,
    without_code: String,
}

/// State while the events of a page are read.
struct Reader<'a> {
    source: &'a str,
    page: Page,
    blocks: BlockReader<'a>,
    kind: TextKind,
    /// The text that is being read, and the offset of its beginning.
    open: Option<(usize, OpenText)>,
    in_image: bool,
    /// Bytes of code blocks and tables.
    unwrapped: Vec<Range<usize>>,
}

impl<'a> Reader<'a> {
    fn new(path: &str, source: &'a str) -> Self {
        Self {
            source,
            page: Page { path: path.to_owned(), ..Page::default() },
            blocks: BlockReader::new(source),
            kind: TextKind::Prose,
            open: None,
            in_image: false,
            unwrapped: Vec::new(),
        }
    }

    fn line(&self, offset: usize) -> usize {
        self.source[..offset].matches('\n').count() + 1
    }

    fn read(&mut self, event: Event<'_>, range: Range<usize>) {
        match event {
            Event::Start(tag) => self.start(tag, range),
            Event::End(tag) => self.end(tag),
            Event::Text(text) => match self.blocks.open_text() {
                Some(content) => content.push_str(&text),
                None => self.push(range.start, &text, &text),
            },
            Event::Code(text) => {
                let word = text.replace(char::is_whitespace, &CODE_SPACE.to_string());
                self.push(range.start, &word, "");
            }
            Event::SoftBreak | Event::HardBreak => self.push(range.start, " ", " "),
            Event::Html(html) | Event::InlineHtml(html) => self.read_html(&html, range.start),
            Event::InlineMath(_)
            | Event::DisplayMath(_)
            | Event::FootnoteReference(_)
            | Event::Rule
            | Event::TaskListMarker(_) => self.flush(),
        }
    }

    fn start(&mut self, tag: Tag<'_>, range: Range<usize>) {
        if matches!(tag, Tag::Emphasis | Tag::Strong) {
            return;
        }
        if let Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. } = &tag {
            self.in_image |= matches!(tag, Tag::Image { .. });
            return self.link(dest_url, range.start);
        }
        self.flush();
        self.kind = if let Tag::Heading { level, .. } = tag {
            self.blocks.heading(range.clone());
            TextKind::Heading(level as usize)
        } else if tag == Tag::TableCell {
            TextKind::TableCell
        } else {
            TextKind::Prose
        };
        if matches!(tag, Tag::CodeBlock(_) | Tag::Table(_)) {
            self.unwrapped.push(range.clone());
        }
        if let Tag::CodeBlock(kind) = tag {
            self.blocks.start(&kind, self.line(range.start), range);
        }
    }

    fn end(&mut self, tag: TagEnd) {
        if matches!(tag, TagEnd::Emphasis | TagEnd::Strong | TagEnd::Link) {
            return;
        }
        if tag == TagEnd::Image {
            self.in_image = false;
            return;
        }
        self.flush();
        self.kind = TextKind::Prose;
        if tag == TagEnd::CodeBlock {
            self.blocks.end();
        }
    }

    /// Adds to the open text, or begins one. The description of an image is not part of a text.
    fn push(&mut self, offset: usize, text: &str, without_code: &str) {
        if self.in_image {
            return;
        }
        let (_, open) = self.open.get_or_insert_with(|| (offset, OpenText::default()));
        open.text.push_str(text);
        open.without_code.push_str(without_code);
    }

    fn flush(&mut self) {
        let Some((offset, OpenText { text, without_code })) = self.open.take() else { return };
        if !text.trim().is_empty() {
            let (kind, line, text) = (self.kind, self.line(offset), text.trim().to_owned());
            self.page.texts.push(Text { kind, line, text, without_code });
        }
    }

    fn link(&mut self, target: &str, offset: usize) {
        let line = self.line(offset);
        self.page.links.push(Link { line, target: target.to_owned() });
    }

    /// Reads the links of HTML outside of comments.
    fn read_html(&mut self, html: &str, offset: usize) {
        for attribute in ["href=\"", "src=\""] {
            let values = html.split(attribute).skip(1);
            for value in values.filter_map(|rest| rest.split('"').next()) {
                self.link(value, offset);
            }
        }
    }

    fn finish(mut self) -> Page {
        self.flush();
        let mut begin = 0;
        for (index, line) in self.source.split_inclusive('\n').enumerate() {
            if !self.unwrapped.iter().any(|range| range.contains(&begin)) {
                self.page.lines.push((index + 1, line.trim_end().to_owned()));
            }
            begin += line.len();
        }
        self.page.blocks = self.blocks.finish();
        self.page
    }
}
