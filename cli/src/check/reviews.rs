//! Requests the decisions of the API server about permissions.

use std::collections::BTreeSet;

use ferrolb_proto::controller::state::Names;
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

/// Returns the permissions, each with the decision of the API server.
///
/// # Errors
/// The API server is unavailable, or does not permit the reviews.
pub async fn reviews(
    client: &Client,
    permissions: BTreeSet<Permission>,
    names: &Names,
) -> Result<Vec<Permission>, kube::Error> {
    let review = |permission| review(client, permission, names);
    futures::stream::iter(permissions.into_iter().map(review)).buffered(REVIEWS).try_collect().await
}

/// Requests the decision of the API server about a permission.
async fn review(
    client: &Client,
    permission: Permission,
    names: &Names,
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
        let namespace = &names.namespace;
        let groups = [
            "system:serviceaccounts",
            &format!("system:serviceaccounts:{namespace}"),
            "system:authenticated",
        ];
        let spec = SubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            user: Some(format!("system:serviceaccount:{namespace}:{}", permission.account)),
            groups: Some(groups.map(str::to_owned).to_vec()),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        create(client, &review).await?.status
    };
    Ok(Permission { allowed: status.is_some_and(|status| status.allowed), ..permission })
}

async fn create<K>(client: &Client, object: &K) -> Result<K, kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Serialize,
{
    Api::<K>::all(client.clone()).create(&PostParams::default(), object).await
}
