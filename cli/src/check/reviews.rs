//! Requests the decisions of the API server about permissions.

use std::collections::BTreeSet;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SubjectAccessReview,
    SubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::rbac::Permission;

/// Number of reviews that are requested at the same time.
const REVIEWS: usize = 8;

/// Returns the permissions, each with the decision of the API server. `installation` is the
/// namespace of the ServiceAccounts.
///
/// # Errors
/// The API server is unavailable, or does not permit the reviews.
pub async fn reviews(
    client: &Client,
    permissions: BTreeSet<Permission>,
    installation: &str,
) -> Result<Vec<Permission>, kube::Error> {
    let review = |permission| review(client, permission, installation);
    futures::stream::iter(permissions.into_iter().map(review)).buffered(REVIEWS).try_collect().await
}

/// Requests the decision of the API server about a permission.
async fn review(
    client: &Client,
    permission: Permission,
    installation: &str,
) -> Result<Permission, kube::Error> {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let (resource, subresource) =
        permission.resource.split_once('/').unwrap_or((&permission.resource, ""));
    let attributes = ResourceAttributes {
        namespace: some(&permission.namespace),
        group: some(&permission.group),
        resource: some(resource),
        subresource: some(subresource),
        name: some(&permission.name),
        verb: some(&permission.verb),
        ..ResourceAttributes::default()
    };
    let status = if permission.account.is_empty() {
        let spec = SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        };
        let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
        create(client, &review).await?.status
    } else {
        let spec = SubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..of_account(installation, &permission.account)
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        create(client, &review).await?.status
    };
    Ok(Permission { allowed: status.is_some_and(|status| status.allowed), ..permission })
}

/// Returns the part of a review that names a ServiceAccount.
fn of_account(namespace: &str, account: &str) -> SubjectAccessReviewSpec {
    let groups = [
        "system:serviceaccounts",
        &format!("system:serviceaccounts:{namespace}"),
        "system:authenticated",
    ];
    SubjectAccessReviewSpec {
        user: Some(format!("system:serviceaccount:{namespace}:{account}")),
        groups: Some(groups.map(str::to_owned).to_vec()),
        ..SubjectAccessReviewSpec::default()
    }
}

async fn create<K>(client: &Client, object: &K) -> Result<K, kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Serialize,
{
    Api::<K>::all(client.clone()).create(&PostParams::default(), object).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_review_names_the_account_in_the_namespace_of_the_installation() {
        let spec = of_account("lb", "speaker");
        assert_eq!(spec.user.as_deref(), Some("system:serviceaccount:lb:speaker"));
        assert!(spec.groups.unwrap().contains(&"system:serviceaccounts:lb".to_owned()));
    }
}
