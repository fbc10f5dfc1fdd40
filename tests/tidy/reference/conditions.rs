//! `docs/reference/conditions.md`: its tables of reasons. The row of a reason is the doc comment of
//! the enum variant for which a function `reason` returns it, or of the returned constant.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use syn::visit::Visit;
use syn::{Attribute, Expr, ImplItem, ItemConst, ItemEnum, ItemImpl, Lit, Meta, Stmt, Type};

use crate::generated::{self, code, one_line, table};
use crate::tree::{assert_none, files, root};

const FILE: &str = "docs/reference/conditions.md";
const COMMAND: &str = "-p ferrolb-tidy reference";
/// Beginning of the comment before each table. The types whose reasons the table lists follow.
const MARKER: &str = "<!-- reasons: ";
const MARKER_END: &str = " -->\n";
/// Beginning of the paragraph with the action. The paragraph before the first blank line is the
/// cause. A variant without an action has no row.
const ACTION: &str = "Action: ";
/// Folders of the crates that define reasons, and their objects.
const SOURCES: [&str; 4] = ["proto/src/", "core/src/", "controller/core/src/", "speaker/core/src/"];
/// The enum whose variants are reasons; a function with another name returns their names.
const REASON: &str = "Reason";

/// Name of an enum and of a variant. The name of the enum is empty for a constant.
type Name = (String, String);

/// An arm of a function `reason`: the variants of its pattern, and the literal or constant.
#[derive(Default)]
struct Case {
    variants: Vec<Name>,
    literal: Option<String>,
    constant: String,
}

/// The reasons in the sources.
#[derive(Default)]
struct Reasons {
    /// Cause and action of the variants and constants whose doc comments have an action.
    texts: BTreeMap<Name, [String; 2]>,
    /// Values of the constants.
    constants: BTreeMap<String, String>,
    /// Cases of each type's function `reason`.
    cases: BTreeMap<String, Vec<Case>>,
}

/// Collects the arms of a function `reason` of the type `of`.
#[derive(Default)]
struct Arms {
    of: String,
    cases: Vec<Case>,
    /// Variants in the pattern that is read.
    variants: Vec<Name>,
}

/// Returns the cause and the action in a doc comment, with links of the page; `None` without an
/// action.
fn text(attributes: &[Attribute]) -> Option<[String; 2]> {
    let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(it) if it.path.is_ident("doc") => literal(&it.value),
        Meta::NameValue(_) | Meta::List(_) | Meta::Path(_) => None,
    });
    let lines: Vec<_> = lines.map(|line| line.trim().to_owned()).collect();
    let comment = lines.join("\n");
    let mut paragraphs = comment.split("\n\n");
    let cause = paragraphs.next()?;
    let action = paragraphs.find_map(|paragraph| paragraph.strip_prefix(ACTION))?;
    let links = [(FILE, ""), ("docs/reference/", ""), ("docs/", "../")];
    let on_page = |text: &str| {
        links.iter().fold(one_line(text), |text, (path, link)| {
            text.replace(&format!("]({path}"), &format!("]({link}"))
        })
    };
    Some([on_page(cause), on_page(action)])
}

/// Returns the text of a string literal.
fn literal(value: &Expr) -> Option<String> {
    let Expr::Lit(it) = value else { return None };
    let Lit::Str(text) = &it.lit else { return None };
    Some(text.value())
}

impl<'ast> Visit<'ast> for Reasons {
    fn visit_item_enum(&mut self, item: &'ast ItemEnum) {
        for variant in &item.variants {
            let name = (item.ident.to_string(), variant.ident.to_string());
            self.texts.extend(text(&variant.attrs).map(|text| (name, text)));
        }
    }

    fn visit_item_const(&mut self, item: &'ast ItemConst) {
        let name = item.ident.to_string();
        self.texts.extend(text(&item.attrs).map(|text| ((String::new(), name.clone()), text)));
        self.constants.extend(literal(&item.expr).map(|value| (name, value)));
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        let Type::Path(of) = &*item.self_ty else { return };
        let of = of.path.segments.last().map_or_else(String::new, |part| part.ident.to_string());
        for item in &item.items {
            let ImplItem::Fn(function) = item else { continue };
            let output = &function.sig.output;
            let is_text = quote::quote!(#output).to_string() == "-> & 'static str";
            if is_text && (function.sig.ident == "reason" || of == REASON) {
                let mut arms = Arms { of: of.clone(), ..Arms::default() };
                arms.visit_block(&function.block);
                self.cases.entry(arms.of).or_default().extend(arms.cases);
            }
        }
    }
}

impl<'ast> Visit<'ast> for Arms {
    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        let mut body = &*arm.body;
        if let Expr::Block(it) = body
            && let [Stmt::Expr(inner, None)] = &*it.block.stmts
        {
            body = inner;
        }
        let mut case = Case::default();
        #[expect(clippy::wildcard_enum_match_arm, reason = "other expressions are no reason")]
        match body {
            Expr::Match(it) => return self.visit_expr_match(it),
            Expr::MethodCall(it) if it.method == "reason" => return,
            Expr::Path(it) => case.constant = it.path.segments[0].ident.to_string(),
            body => case.literal = literal(body),
        }
        self.variants.clear();
        self.visit_pat(&arm.pat);
        case.variants.append(&mut self.variants);
        self.cases.push(case);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<_> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        if let [.., of, name] = &*names {
            let of = if of == "Self" { &self.of } else { of };
            self.variants.push((of.clone(), name.clone()));
        }
    }
}

impl Reasons {
    fn read() -> Self {
        let mut found = Self::default();
        let is_source = |path: &str| SOURCES.iter().any(|folder| path.starts_with(folder));
        for file in files(&[".rs"]).iter().filter(|file| is_source(&file.path)) {
            let syntax = syn::parse_file(&file.text).expect("a source file has no valid syntax");
            found.visit_file(&syntax);
        }
        found
    }

    /// Returns the row of a constant, if its doc comment has an action.
    fn constant_row(&self, name: &str) -> Option<[String; 3]> {
        let [cause, action] = self.texts.get(&(String::new(), name.to_owned()))?.clone();
        Some([code(&self.constants[name]), cause, action])
    }

    /// Returns the rows of a case: that of its constant, or else those of its variants.
    fn case_rows(&self, of: &str, case: &Case) -> Vec<[String; 3]> {
        if let Some(row) = self.constant_row(&case.constant) {
            return vec![row];
        }
        let reason = case.literal.as_ref().or_else(|| self.constants.get(&case.constant));
        let reason = reason.unwrap_or_else(|| panic!("{of}: a reason is no literal or constant"));
        let texts = case.variants.iter().filter_map(|name| self.texts.get(name).cloned());
        let rows: Vec<_> = texts.map(|[cause, action]| [code(reason), cause, action]).collect();
        assert!(!rows.is_empty(), "{of}: the doc comment for {reason} has no \"{ACTION}\"");
        rows
    }

    /// Returns the table of these types and constants. Skips the reasons of types that another
    /// table lists as constants. The rows of one reason follow each other.
    fn table(&self, names: &str, listed: &BTreeSet<&str>) -> String {
        let mut rows: Vec<[String; 3]> = Vec::new();
        for name in names.split(", ") {
            rows.extend(self.constant_row(name));
            let cases = self.cases.get(name).into_iter().flatten();
            let own = cases.filter(|case| !listed.contains(case.constant.as_str()));
            rows.extend(own.flat_map(|case| self.case_rows(name, case)));
        }
        let reasons: Vec<_> = rows.iter().map(|[reason, ..]| reason.clone()).collect();
        rows.sort_by_key(|row| reasons.iter().position(|reason| *reason == row[0]));
        table(&["reason", "cause", "action"], &rows.into_iter().map(Vec::from).collect::<Vec<_>>())
    }
}

#[test]
fn the_tables_of_reasons_are_current() {
    let reasons = Reasons::read();
    let page = fs::read_to_string(root().join(FILE)).expect("cannot read a page");
    let mut parts = page.split(MARKER);
    let mut generated = parts.next().unwrap_or_default().to_owned();
    let parts: Vec<_> = parts.filter_map(|part| part.split_once(MARKER_END)).collect();
    let listed: BTreeSet<_> = parts.iter().flat_map(|(names, _)| names.split(", ")).collect();
    for (names, rest) in parts {
        let in_table = |line: &&str| line.is_empty() || line.starts_with('|');
        let rest: Vec<_> = rest.lines().skip_while(in_table).collect();
        let table = reasons.table(names, &listed);
        generated.push_str(&format!("{MARKER}{names}{MARKER_END}{table}\n{}\n", rest.join("\n")));
    }
    generated::check(&root(), FILE, &generated, COMMAND);
    let missing = reasons.cases.keys().filter(|of| !listed.contains(of.as_str()));
    let missing: Vec<_> = missing.cloned().collect();
    assert_none(&missing, &format!("name these types in a comment `{MARKER}…` of {FILE}:"));
}
