//! The kinds of objects that a program watches, as one list per program. Pure.

use ferrolb_proto::Instant;
use ferrolb_proto::facts::Kind;

use crate::store::Change;

/// A state that handles the changes of the objects of one kind. `E` is the effect of a change.
pub trait HandleChange<F, E = ()> {
    /// Handles a change that occurred until `now`.
    fn handle_change(&mut self, change: Change<F>, now: Instant) -> E;
}

/// A function of a kind, which [`watched_kinds`](crate::watched_kinds) calls for each one. `E` is
/// the event of the program that reports a change.
pub trait KindVisitor<E> {
    /// Called once for each kind.
    fn visit<F: Kind>(&mut self)
    where
        E: From<Change<F>>;
}

/// Defines the enum `ObjectChange`: a change of an object of any of the listed kinds, which the
/// program watches. Each kind is a fact. `Event` is the event of the program, with the variant
/// `Object`. Each list of kinds has the name of the method that passes them to a visitor.
#[macro_export]
macro_rules! watched_kinds {
    (
        $(#[$meta:meta])*
        pub enum ObjectChange;
        $($(#[$doc:meta])* $for_each:ident: { $($fact:ident),+ $(,)? })+
    ) => {
        $(#[$meta])*
        pub enum ObjectChange {
            $($(
                #[doc = concat!("A change of the kind ", stringify!($fact), ".")]
                $fact($crate::store::Change<$fact>),
            )+)+
        }

        $($(impl From<$crate::store::Change<$fact>> for Event {
            fn from(change: $crate::store::Change<$fact>) -> Self {
                Self::Object(ObjectChange::$fact(change))
            }
        })+)+

        impl Event {
            /// Returns the event of a change.
            pub fn of<F>(change: $crate::store::Change<F>) -> Self
            where
                Self: From<$crate::store::Change<F>>,
            {
                change.into()
            }

            $($(#[$doc])*
            pub fn $for_each(visitor: &mut impl $crate::watched::KindVisitor<Self>) {
                $(visitor.visit::<$fact>();)+
            })+

            /// Returns the object that this event reports as unreadable: its kind, its key, and the
            /// reason. `None`: the event reports no such object.
            #[must_use]
            pub fn unreadable(&self) -> Option<(&'static str, &Key, &str)> {
                let Self::Object(change) = self else { return None };
                match change {
                    $($(ObjectChange::$fact(change) => change.unreadable(),)+)+
                }
            }
        }

        impl ObjectChange {
            /// Passes the change to the state, which handles changes of this kind.
            pub(crate) fn apply<S, E>(self, state: &mut S, now: Instant) -> E
            where
                $($(S: $crate::watched::HandleChange<$fact, E>,)+)+
            {
                match self {
                    $($(Self::$fact(change) => state.handle_change(change, now),)+)+
                }
            }
        }
    };
}
