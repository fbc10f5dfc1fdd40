//! No file contains an e-mail address: the contact is the security advisory of the repository.

use crate::tree::{assert_none, files};

/// Returns the e-mail addresses in a text.
fn addresses(text: &str) -> Vec<String> {
    let is_of_domain = |c: char| c.is_ascii_alphanumeric() || ".-".contains(c);
    let is_of_name = |c: char| is_of_domain(c) || "_%+".contains(c);
    let address = |(at, _)| {
        let name = text[..at].rsplit(|c| !is_of_name(c)).next()?;
        let domain = text[at + 1..].split(|c| !is_of_domain(c)).next()?.trim_end_matches('.');
        let (_, top) = domain.rsplit_once('.')?;
        // The last part of a version, such as that of gobgpd@v4.8.0, has digits.
        let is_top = top.len() > 1 && top.chars().all(|c| c.is_ascii_alphabetic());
        (!name.is_empty() && is_top).then(|| format!("{name}@{domain}"))
    };
    text.match_indices('@').filter_map(address).collect()
}

#[test]
fn no_file_contains_an_email_address() {
    let found = files(&[""]).into_iter().flat_map(|file| {
        let path = file.path;
        addresses(&file.text).into_iter().map(move |address| format!("{path}: {address}"))
    });
    assert_none(&found.collect::<Vec<_>>(), "name the security advisory instead of these:");
}

#[test]
fn versions_and_digests_are_no_email_addresses() {
    // In parts, because no file contains an e-mail address.
    let text =
        ["a gobgpd@v4.8.0, base64@0.22, x@sha256:0a.b, @b.com; <some.one", "@mail.example.org>."];
    assert_eq!(addresses(&text.concat()), [["some.one", "@mail.example.org"].concat()]);
}
