//! The Secret with the keys of the hello protocol: where the API server has it.

use k8s_openapi::api::core::v1::Secret;

use super::kind::built_in;
use crate::wire::hello::HelloKeyRing;

/// Field selector of the Secret [`crate::api::HELLO_SECRET`].
const SECRET_SELECTOR: &str = "metadata.name=ferrolb-hello";

built_in!(HelloKeyRing: Secret, "Secret", "Secret ferrolb-hello", own, FIELDS = SECRET_SELECTOR);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::HELLO_SECRET;

    #[test]
    fn the_selector_names_the_secret() {
        assert_eq!(SECRET_SELECTOR, format!("metadata.name={HELLO_SECRET}"));
    }
}
