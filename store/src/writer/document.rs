//! Documents that are borrowed from their request until something merges into them.

use std::ops::Deref;

/// A document of a batch, or one of its own. What is sorted and gathered in lists is a pointer either way:
/// observations have more than a thousand bytes, and most are never owned.
pub(super) enum Document<'a, T> {
    Borrowed(&'a T),
    Owned(Box<T>),
}

impl<T> Document<'_, T> {
    pub(super) fn owned(document: T) -> Self {
        Self::Owned(Box::new(document))
    }
}

impl<T: Clone> Document<'_, T> {
    /// To merge something into.
    pub(super) fn to_mut(&mut self) -> &mut T {
        if let Self::Borrowed(document) = self {
            *self = Self::owned(document.clone());
        }
        match self {
            Self::Owned(document) => document,
            Self::Borrowed(_) => unreachable!("it was copied"),
        }
    }

    pub(super) fn into_owned(self) -> T {
        match self {
            Self::Borrowed(document) => document.clone(),
            Self::Owned(document) => *document,
        }
    }
}

impl<T> Deref for Document<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Borrowed(document) => document,
            Self::Owned(document) => document,
        }
    }
}
