//! Values of labels and annotations.
use serde::{
    Deserialize,
    de::{IntoDeserializer as _, value::Error},
};

use super::{
    super::{
        names,
        objects::{Marks, Name},
        problem::Reason,
    },
    Build,
};

impl Build<'_> {
    /// A value that is one of a few words, or text with a form; none if it is not said, or means nothing.
    pub(super) fn value<'m, T: Deserialize<'m>>(
        &mut self,
        kind: &'static str,
        object: &Name,
        marks: &'m Marks,
        key: &str,
    ) -> Said<T> {
        let Some(text) = marks.get(key) else { return Said::Nothing };
        let text: serde::de::value::StrDeserializer<'_, Error> = text.into_deserializer();
        match T::deserialize(text) {
            Ok(value) => Said::This(value),
            Err(why) => {
                self.problem(kind, object, Reason::BadValue, format!("{key}: {why}"));
                Said::Nonsense
            }
        }
    }

    /// Whether an object's connections are to be left alone: its own word, or else its namespace's.
    pub(super) fn bypass(&mut self, kind: &'static str, object: &Name, marks: &Marks) -> bool {
        let own = self.flag(kind, object, marks);
        own.unwrap_or_else(|| {
            let namespace = Name::new("", &object.namespace);
            let objects = self.objects;
            let of = objects.namespaces.get(&namespace);
            of.and_then(|it| self.flag("Namespace", &namespace, &it.marks)).unwrap_or(false)
        })
    }

    fn flag(&mut self, kind: &'static str, object: &Name, marks: &Marks) -> Option<bool> {
        match marks.get(names::BYPASS)? {
            "true" => Some(true),
            "false" => Some(false),
            other => {
                let message = format!("{}: {other:?} is neither true nor false", names::BYPASS);
                self.problem(kind, object, Reason::BadValue, message);
                // Whoever writes this wants to be left alone.
                Some(true)
            }
        }
    }

    /// The environment an object is labelled with, or else its namespace. An empty label is a word of its own: none.
    pub(super) fn environment<'m>(&'m self, object: &Name, marks: &'m Marks) -> Option<&'m str> {
        let of_namespace = || {
            let namespace = self.objects.namespaces.get(&Name::new("", &object.namespace))?;
            namespace.marks.get(names::ENVIRONMENT)
        };
        marks.get(names::ENVIRONMENT).or_else(of_namespace).filter(|name| !name.is_empty())
    }
}

/// What a label or annotation says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said<T> {
    /// It is not there.
    Nothing,
    /// Something.
    This(T),
    /// Something that means nothing.
    Nonsense,
}

impl<T> Said<T> {
    /// What it says, if it says something.
    pub(super) fn value(self) -> Option<T> {
        match self {
            Self::This(value) => Some(value),
            Self::Nothing | Self::Nonsense => None,
        }
    }
}
