//! The kinds of objects that FerroLB reads: where the API server has their objects, and how an
//! object becomes a fact. Each program lists the kinds that it watches.

use std::fmt::Debug;

use kube::Resource as _;
use kube::core::{ApiResource, DynamicObject};
use serde::de::DeserializeOwned;

use crate::api::{self, CustomResourceKind};

/// A kind of objects, implemented by the fact of an object.
pub trait Kind: Debug + Send + Sized + 'static {
    /// The decoded object.
    type Object: DeserializeOwned;
    /// Name of the kind, as in `kind:`.
    const NAME: &'static str;
    /// Name of all objects of the kind, for logs.
    const PLURAL: &'static str;
    /// Label selector of the objects that FerroLB reads; `None`: all.
    const LABELS: Option<&'static str> = None;
    /// Field selector of the objects that FerroLB reads; `None`: all.
    const FIELDS: Option<&'static str> = None;

    /// Returns the name of the kind in the API, with its group.
    fn resource(context: &ReadContext) -> ApiResource;

    /// Returns the namespace of the objects that FerroLB reads; `None`: all.
    fn namespace(_: &ReadContext) -> Option<&str> {
        None
    }

    /// Returns the path of the objects in the API.
    fn path(context: &ReadContext) -> String {
        DynamicObject::url_path(&Self::resource(context), Self::namespace(context))
    }

    /// Returns the fact of an object.
    fn read(object: Self::Object, context: &ReadContext) -> Self;
}

/// A kind that FerroLB defines.
pub trait CustomResource: Kind {
    /// The kind in the API.
    const KIND: CustomResourceKind;
}

/// The installation for which a program reads objects.
#[derive(Clone, Debug)]
pub struct ReadContext {
    /// Namespace of FerroLB's own objects (`--namespace`).
    pub namespace: String,
    /// API group of the custom resources (`--api-group`).
    pub group: String,
    /// Field manager of the controller that reads the objects; `None`: the facts of Services do not
    /// contain the owners of fields.
    pub field_manager: Option<String>,
}

impl ReadContext {
    /// Returns the context of the controller of this installation.
    #[must_use]
    pub fn of_controller(namespace: &str, group: &str) -> Self {
        let field_manager = Some(api::field_manager(namespace));
        Self { field_manager, ..Self::of_speaker(namespace, group) }
    }

    /// Returns the context of a speaker of this installation.
    #[must_use]
    pub fn of_speaker(namespace: &str, group: &str) -> Self {
        Self { namespace: namespace.to_owned(), group: group.to_owned(), field_manager: None }
    }
}

/// Implements [`Kind`] for the fact of an object of Kubernetes: `all` reads all objects of the
/// kind, and `own` those in FerroLB's namespace.
macro_rules! built_in {
    ($fact:ident: $object:ty, $name:literal, $plural:literal, $scope:ident
        $(, $selector:ident = $text:expr)?) => {
        impl $crate::facts::Kind for $fact {
            type Object = $object;
            const NAME: &'static str = $name;
            const PLURAL: &'static str = $plural;
            $(const $selector: Option<&'static str> = Some($text);)?

            fn resource(_: &$crate::facts::ReadContext) -> kube::core::ApiResource {
                kube::core::ApiResource::erase::<$object>(&())
            }

            fn namespace(context: &$crate::facts::ReadContext) -> Option<&str> {
                $crate::facts::kind::$scope(context)
            }

            fn read(object: $object, _: &$crate::facts::ReadContext) -> Self {
                object.into()
            }
        }
    };
}

pub(crate) const fn all(_: &ReadContext) -> Option<&str> {
    None
}

pub(crate) fn own(context: &ReadContext) -> Option<&str> {
    Some(&context.namespace)
}

/// Implements [`Kind`] and [`Keyed`](super::Keyed) for the fact of a custom resource, whose field
/// `$key` is its name.
macro_rules! custom_resource {
    ($fact:ident.$key:ident: $object:ident, $kind:ident, $plural:literal) => {
        impl $crate::facts::Kind for $fact {
            type Object = $crate::api::$object;
            const NAME: &'static str = <$fact as $crate::facts::CustomResource>::KIND.name();
            const PLURAL: &'static str = $plural;

            fn resource(context: &$crate::facts::ReadContext) -> kube::core::ApiResource {
                use $crate::facts::CustomResource;
                $crate::api::resource(<$fact>::KIND, &context.group)
            }

            fn namespace(context: &$crate::facts::ReadContext) -> Option<&str> {
                Some(&context.namespace)
            }

            fn read(object: $crate::api::$object, _: &$crate::facts::ReadContext) -> Self {
                object.into()
            }
        }

        impl $crate::facts::CustomResource for $fact {
            const KIND: $crate::api::CustomResourceKind = $crate::api::CustomResourceKind::$kind;
        }

        impl $crate::facts::Keyed for $fact {
            type Key = Box<str>;

            fn key(&self) -> Box<str> {
                self.$key.clone()
            }
        }
    };
}

pub(crate) use {built_in, custom_resource};
