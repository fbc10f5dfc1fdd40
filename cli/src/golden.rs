//! Comparison of outputs with golden files. Only for tests.

use std::fs;
use std::path::Path;

/// Compares a text with a golden file, whose path is relative to `src`. With the variable
/// `FERROLB_UPDATE_SNAPSHOTS`, writes the file first. Links to a file of this version contain
/// `VERSION` there.
pub(crate) fn golden(path: &str, text: &str) {
    let text = text.replace(concat!("/v", env!("CARGO_PKG_VERSION"), "/"), "/vVERSION/");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(path);
    #[expect(
        clippy::disallowed_methods,
        reason = "the variable is an option of this test, not of a component"
    )]
    if std::env::var("FERROLB_UPDATE_SNAPSHOTS").is_ok() {
        fs::write(&file, &text).unwrap();
    }
    assert!(
        fs::read_to_string(&file).unwrap_or_default() == text,
        "{path} differs: run FERROLB_UPDATE_SNAPSHOTS=1 cargo test -p ferrolb-cli, and read the \
         diff. The output is:\n{text}"
    );
}
