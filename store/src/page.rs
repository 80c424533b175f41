//! A page of a list.

/// Which page a caller wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Counted from 1.
    pub number: i64,
    /// Rows on a page, 1 to 100.
    pub limit: i64,
}

impl Page {
    /// Rows before this page.
    pub fn offset(self) -> i64 {
        (self.number - 1).saturating_mul(self.limit)
    }
}

/// Rows of one page, and how many there are on all of them.
#[derive(Debug, Clone)]
pub struct Paged<T> {
    /// The page's rows.
    pub rows: Vec<T>,
    /// Rows on all pages.
    pub total: i64,
}
