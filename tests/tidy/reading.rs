//! Checks of sentences and headings on all pages: length, first words, and punctuation.

use ferrolb_markdown::{Page, TextKind};

use crate::tree::{assert_none, pages};

/// Maximum number of words of a sentence.
const SENTENCE_WORDS_MAX: usize = 30;
/// Maximum average of the words of a page's sentences.
const AVERAGE_WORDS_MAX: usize = 20;

/// Words that begin no sentence, because they hide its subject.
const OPENERS: [&str; 5] = ["What", "Whether", "Who", "Whoever", "That"];

/// Words with a period that ends no sentence.
const ABBREVIATIONS: [&str; 6] = ["e.g.", "i.e.", "vs.", "etc.", "approx.", "no."];

/// Pages whose headings may be questions.
const QUESTIONS: [&str; 2] = ["docs/operate/faq.md", "docs/operate/faq-cluster.md"];

/// Returns the words of each sentence of a text. A word has a letter or a digit.
fn sentences(text: &str) -> Vec<Vec<&str>> {
    let mut found = vec![Vec::new()];
    for word in text.split(' ').filter(|word| word.contains(char::is_alphanumeric)) {
        if let Some(sentence) = found.last_mut() {
            sentence.push(word);
        }
        let bare = word.trim_end_matches([')', '"', '\'', '”', '’', ']']);
        let bare = bare.trim_start_matches(['(', '"', '“']);
        if bare.ends_with(['.', '?', '!']) && !ABBREVIATIONS.contains(&&*bare.to_lowercase()) {
            found.push(Vec::new());
        }
    }
    found.retain(|sentence| !sentence.is_empty());
    found
}

/// Returns the sentences of the paragraphs and list items of a page, with their lines.
fn prose_sentences(page: &Page) -> impl Iterator<Item = (usize, Vec<&str>)> {
    let prose = page.texts.iter().filter(|text| text.kind == TextKind::Prose);
    prose.flat_map(|text| sentences(&text.text).into_iter().map(|words| (text.line, words)))
}

/// Returns whether a sentence begins with a word of [`OPENERS`].
fn has_opener(sentence: &[&str]) -> bool {
    let first = sentence.first().map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()));
    first.is_some_and(|word| OPENERS.contains(&word))
}

/// Returns a sentence as a message shows it.
fn shown(sentence: &[&str]) -> String {
    sentence.join(" ")
}

#[test]
fn sentences_are_short() {
    let mut problems = Vec::new();
    for page in pages() {
        for (line, words) in prose_sentences(&page) {
            if words.len() > SENTENCE_WORDS_MAX {
                let (count, text) = (words.len(), shown(&words));
                problems.push(format!("{}:{line}: {count} words: {text}", page.path));
            }
        }
    }
    assert_none(
        &problems,
        &format!("shorten these sentences, {SENTENCE_WORDS_MAX} words at most:"),
    );
}

/// Returns whether a paragraph contains the number of a list item that a reflow has moved into it.
fn has_joined_item(text: &str) -> bool {
    let words: Vec<_> = text.split(' ').collect();
    words.windows(3).any(|words| {
        let number = words[1].strip_suffix('.').unwrap_or_default();
        words[0].ends_with('.')
            && !number.is_empty()
            && number.chars().all(|c| c.is_ascii_digit())
            && words[2].starts_with(char::is_uppercase)
    })
}

#[test]
fn list_items_begin_a_line() {
    let mut problems = Vec::new();
    for page in pages() {
        for text in page.texts.iter().filter(|text| text.kind == TextKind::Prose) {
            if has_joined_item(&text.text) {
                problems.push(format!("{}:{}: {}", page.path, text.line, text.text));
            }
        }
    }
    assert_none(&problems, "begin a line with each number of a list:");
    assert!(has_joined_item("Stop it. 2. Remove it.") && !has_joined_item("Version 2. Now"));
}

#[test]
fn the_average_sentence_of_a_page_is_short() {
    let mut problems = Vec::new();
    for page in pages() {
        let lengths: Vec<_> = prose_sentences(&page).map(|(_, words)| words.len()).collect();
        let words: usize = lengths.iter().sum();
        if words > AVERAGE_WORDS_MAX * lengths.len() {
            let tenths = words * 10 / lengths.len();
            problems.push(format!("{}: {}.{} words", page.path, tenths / 10, tenths % 10));
        }
    }
    assert_none(
        &problems,
        &format!("shorten the sentences of these pages, {AVERAGE_WORDS_MAX} words on average:"),
    );
}

#[test]
fn no_sentence_begins_with_a_relative_clause() {
    let mut problems = Vec::new();
    for page in pages() {
        let is_question = |kind: TextKind| {
            QUESTIONS.contains(&&*page.path) && matches!(kind, TextKind::Heading(_))
        };
        for text in page.texts.iter().filter(|text| !is_question(text.kind)) {
            for sentence in sentences(&text.text).iter().filter(|sentence| has_opener(sentence)) {
                problems.push(format!("{}:{}: {}", page.path, text.line, shown(sentence)));
            }
        }
    }
    assert_none(
        &problems,
        &format!("begin these sentences with the name of a thing, not with {OPENERS:?}:"),
    );
}

#[test]
fn headings_are_noun_phrases() {
    let mut problems = Vec::new();
    for page in pages() {
        for heading in page.headings() {
            let is_allowed = QUESTIONS.contains(&&*page.path) && heading.text.ends_with('?');
            if heading.text.ends_with(['?', '!', '.', ':', ',', ';']) && !is_allowed {
                problems.push(format!("{}:{}: {}", page.path, heading.line, heading.text));
            }
        }
        let titles = page.headings().filter(|text| text.kind == TextKind::Heading(1)).count();
        if titles != 1 && !page.path.starts_with(".github/") {
            problems.push(format!("{}: {titles} headings with one #, not 1", page.path));
        }
    }
    assert_none(
        &problems,
        "a heading is a noun phrase without punctuation at its end, and a page has one title:",
    );
}

#[test]
fn a_text_is_split_into_sentences() {
    let counts = |text: &str| sentences(text).iter().map(|words| words.len()).collect::<Vec<_>>();
    assert_eq!(counts("One two. (Three four.) Five 1.5 - six, e.g. seven"), [2, 2, 5]);
    assert_eq!(counts("One \"two.\" kubectl\u{a0}get\u{a0}pods prints it: three"), [2, 4]);
    assert!(has_opener(&sentences("One. (What is two)")[1]));
    assert!(!has_opener(&sentences("Whats")[0]));
}
