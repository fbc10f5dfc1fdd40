//! The Markdown parser of all other modules: the texts, headings, links and code blocks of a page.

use std::ops::Range;

use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

use crate::tree::{TextFile, files};

/// Space inside of inline code, which does not separate words.
const CODE_SPACE: char = '\u{a0}';

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TextKind {
    Heading(HeadingLevel),
    /// A paragraph, or an item of a list without its nested lists.
    Prose,
    TableCell,
}

/// A text without markup: a link is its text, inline code is one word.
#[derive(Debug)]
pub(crate) struct Text {
    pub(crate) kind: TextKind,
    /// Number of the first line.
    pub(crate) line: usize,
    pub(crate) text: String,
    /// The text with an empty word for inline code, which has names of fields, files and metrics.
    pub(crate) without_code: String,
}

/// Target of a link, of an image, or of an attribute `href` or `src` in HTML.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) line: usize,
    pub(crate) target: String,
}

#[derive(Debug)]
pub(crate) struct CodeBlock {
    /// Number of the line of the fence.
    pub(crate) line: usize,
    /// The first word after the fence, or an empty string.
    pub(crate) language: String,
    /// Content of the HTML comment on the line before the fence.
    pub(crate) marker: Option<String>,
    pub(crate) text: String,
}

#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) path: String,
    pub(crate) texts: Vec<Text>,
    pub(crate) links: Vec<Link>,
    pub(crate) blocks: Vec<CodeBlock>,
    /// Words of the source, counted like `wc -w`.
    pub(crate) words: usize,
    /// Lines that prose may wrap: all but those of code blocks and tables, with their numbers.
    pub(crate) lines: Vec<(usize, String)>,
}

impl Page {
    pub(crate) fn headings(&self) -> impl Iterator<Item = &Text> {
        self.texts.iter().filter(|text| matches!(text.kind, TextKind::Heading(_)))
    }
}

/// Returns all pages of the repository, sorted by path.
pub(crate) fn pages() -> Vec<Page> {
    files(&[".md"]).iter().map(parse).collect()
}

/// Parses Markdown as GitHub and mdBook do.
pub(crate) fn parse(file: &TextFile) -> Page {
    let mut reader = Reader::new(file);
    let options = Options::ENABLE_TABLES | Options::ENABLE_GFM;
    for (event, range) in Parser::new_ext(&file.text, options).into_offset_iter() {
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
    kind: TextKind,
    /// The text that is being read, and the offset of its beginning.
    open: Option<(usize, OpenText)>,
    in_code: bool,
    in_image: bool,
    /// Bytes of code blocks and tables.
    unwrapped: Vec<Range<usize>>,
}

impl<'a> Reader<'a> {
    fn new(file: &'a TextFile) -> Self {
        let words = file.text.split_whitespace().count();
        Self {
            source: &file.text,
            page: Page { path: file.path.clone(), words, ..Page::default() },
            kind: TextKind::Prose,
            open: None,
            in_code: false,
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
            Event::Text(text) if self.in_code => {
                if let Some(block) = self.page.blocks.last_mut() {
                    block.text.push_str(&text);
                }
            }
            Event::Text(text) => self.push(range.start, &text, &text),
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
            TextKind::Heading(level)
        } else if tag == Tag::TableCell {
            TextKind::TableCell
        } else {
            TextKind::Prose
        };
        if matches!(tag, Tag::CodeBlock(_) | Tag::Table(_)) {
            self.unwrapped.push(range.clone());
        }
        if let Tag::CodeBlock(kind) = tag {
            self.start_code(&kind, range.start);
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
        self.in_code &= tag != TagEnd::CodeBlock;
    }

    fn start_code(&mut self, kind: &CodeBlockKind<'_>, begin: usize) {
        let language = match kind {
            CodeBlockKind::Fenced(info) => info.split(' ').next().unwrap_or_default().to_owned(),
            CodeBlockKind::Indented => String::new(),
        };
        let line = self.line(begin);
        let before = line.checked_sub(2).and_then(|index| self.source.lines().nth(index));
        let comment = |line: &str| {
            Some(line.trim().strip_prefix("<!--")?.strip_suffix("-->")?.trim().to_owned())
        };
        let marker = before.and_then(comment);
        self.page.blocks.push(CodeBlock { line, language, marker, text: String::new() });
        self.in_code = true;
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
        self.page
    }
}

#[test]
fn a_page_is_read_into_texts_links_and_blocks() {
    let text = "# The `kubectl get` page\n\nOne [link](a.md#b)\nand `two words`.\n\n\
                - item\n  - nested ![no text](c.svg)\n\n<!-- run: lab -->\n```sh\nls\n```\n\n\
                | head |\n|---|\n| cell |\n\n<a href=\"d.md\">\n";
    let page = parse(&TextFile { path: "p.md".to_owned(), text: text.to_owned() });
    let texts: Vec<_> =
        page.texts.iter().map(|text| (text.kind, text.line, text.text.as_str())).collect();
    let expected = [
        (TextKind::Heading(HeadingLevel::H1), 1, "The kubectl\u{a0}get page"),
        (TextKind::Prose, 3, "One link and two\u{a0}words."),
        (TextKind::Prose, 6, "item"),
        (TextKind::Prose, 7, "nested"),
        (TextKind::TableCell, 14, "head"),
        (TextKind::TableCell, 16, "cell"),
    ];
    assert_eq!(texts, expected);
    assert_eq!(page.texts[1].without_code, "One link and .");
    let links: Vec<_> = page.links.iter().map(|link| (link.line, link.target.as_str())).collect();
    assert_eq!(links, [(3, "a.md#b"), (7, "c.svg"), (18, "d.md")]);
    let [block] = &*page.blocks else { panic!("{:?}", page.blocks) };
    assert_eq!((block.line, &*block.language, &*block.text), (10, "sh", "ls\n"));
    assert_eq!(block.marker.as_deref(), Some("run: lab"));
    let lines: Vec<_> = page.lines.iter().map(|(number, _)| *number).collect();
    assert_eq!(lines, [1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 17, 18]);
}
