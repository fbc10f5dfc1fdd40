//! The numbers of one source file, read from its syntax tree.

use proc_macro2::{TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use syn::visit::Visit;
use syn::{Attribute, ImplItem, Item, Type, UseTree};

/// Parts of a path that hold only tests, or inputs of tests.
const TEST_FOLDERS: [&str; 4] = ["/tests/", "/fuzz/", "/benches/", "/tests.rs"];

/// The numbers of a source file.
pub(crate) struct Source {
    pub(crate) path: String,
    /// Lines with a token outside tests. Comments and blank lines have none.
    pub(crate) code_lines: usize,
    /// The same within tests.
    pub(crate) test_lines: usize,
    /// Names of the types and traits that the file defines, outside tests.
    pub(crate) types: BTreeSet<String>,
    /// Number of methods that the file adds to each type, outside tests and traits.
    pub(crate) methods: BTreeMap<String, usize>,
    /// Paths that the file imports, outside tests, such as `crate::facts::Key`.
    pub(crate) imports: BTreeSet<String>,
}

impl Source {
    /// Reads a file.
    pub(crate) fn parse(path: &str, text: &str) -> Self {
        let file = syn::parse_file(text).expect("a source file has no valid syntax");
        let is_test = TEST_FOLDERS.iter().any(|folder| path.contains(folder));
        let mut source = Self {
            path: path.to_owned(),
            code_lines: 0,
            test_lines: 0,
            types: BTreeSet::new(),
            methods: BTreeMap::new(),
            imports: BTreeSet::new(),
        };
        let (mut code, mut tests) = (BTreeSet::new(), BTreeSet::new());
        for item in &file.items {
            let for_tests = is_test || attributes(item).iter().any(is_for_tests);
            let lines = if for_tests { &mut tests } else { &mut code };
            add_lines(quote::ToTokens::to_token_stream(item), lines);
            if !for_tests {
                source.visit_item(item);
            }
        }
        (source.code_lines, source.test_lines) = (code.len(), tests.len());
        source
    }

    /// Returns whether the file is `prefix` with any ending, or in a folder of this name.
    pub(crate) fn is_in(&self, prefix: &str) -> bool {
        let rest = self.path.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '.']))
    }
}

impl<'ast> Visit<'ast> for Source {
    fn visit_item(&mut self, item: &'ast Item) {
        #[expect(clippy::wildcard_enum_match_arm, reason = "other items have no name to count")]
        match item {
            Item::Struct(it) => _ = self.types.insert(it.ident.to_string()),
            Item::Enum(it) => _ = self.types.insert(it.ident.to_string()),
            Item::Trait(it) => _ = self.types.insert(it.ident.to_string()),
            Item::Type(it) => _ = self.types.insert(it.ident.to_string()),
            Item::Impl(it) if it.trait_.is_none() => {
                if let Type::Path(of) = &*it.self_ty
                    && let Some(name) = of.path.segments.last()
                {
                    let is_method = |item: &&ImplItem| matches!(item, ImplItem::Fn(_));
                    let count = it.items.iter().filter(is_method).count();
                    *self.methods.entry(name.ident.to_string()).or_default() += count;
                }
            }
            Item::Use(it) => add_imports(&it.tree, "", &mut self.imports),
            _ => {}
        }
        syn::visit::visit_item(self, item);
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    #[expect(clippy::wildcard_enum_match_arm, reason = "other items are no tests")]
    match item {
        Item::Const(it) => &it.attrs,
        Item::Enum(it) => &it.attrs,
        Item::Fn(it) => &it.attrs,
        Item::Impl(it) => &it.attrs,
        Item::Macro(it) => &it.attrs,
        Item::Mod(it) => &it.attrs,
        Item::Static(it) => &it.attrs,
        Item::Struct(it) => &it.attrs,
        Item::Trait(it) => &it.attrs,
        Item::Type(it) => &it.attrs,
        Item::Use(it) => &it.attrs,
        _ => &[],
    }
}

/// Returns whether an attribute is `#[cfg(test)]`, or `#[cfg(any(test, feature = "fuzz"))]`.
fn is_for_tests(attribute: &Attribute) -> bool {
    let is_test = |list: &syn::MetaList| list.tokens.to_string().contains("test");
    attribute.path().is_ident("cfg") && attribute.meta.require_list().is_ok_and(is_test)
}

/// Adds the lines of all tokens but those of doc comments.
fn add_lines(tokens: TokenStream, lines: &mut BTreeSet<usize>) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let (start, end) = (token.span().start().line, token.span().end().line);
        match (&token, tokens.peek()) {
            (TokenTree::Punct(hash), Some(TokenTree::Group(group)))
                if hash.as_char() == '#' && group.stream().to_string().starts_with("doc =") =>
            {
                tokens.next();
            }
            (TokenTree::Group(group), _) => {
                lines.extend([start, end]);
                add_lines(group.stream(), lines);
            }
            _ => lines.extend(start..=end),
        }
    }
}

fn add_imports(tree: &UseTree, prefix: &str, imports: &mut BTreeSet<String>) {
    let join = |name: &syn::Ident| {
        if prefix.is_empty() { name.to_string() } else { format!("{prefix}::{name}") }
    };
    match tree {
        UseTree::Path(it) => add_imports(&it.tree, &join(&it.ident), imports),
        UseTree::Name(it) => _ = imports.insert(join(&it.ident)),
        UseTree::Rename(it) => _ = imports.insert(join(&it.ident)),
        UseTree::Glob(_) => _ = imports.insert(prefix.to_owned()),
        UseTree::Group(it) => {
            it.items.iter().for_each(|item| add_imports(item, prefix, imports));
        }
    }
}
