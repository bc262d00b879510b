//! A header's lines.

/// One `Key:Value` line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// What precedes the first colon, in whatever case it was written.
    pub key: &'a [u8],
    /// What follows it, spaces and further colons included.
    pub value: &'a [u8],
}

impl<'a> Field<'a> {
    /// A field from text.
    pub fn new(key: &'a str, value: &'a str) -> Self {
        Self { key: key.as_bytes(), value: value.as_bytes() }
    }

    fn from_line(line: &'a [u8]) -> Self {
        match line.iter().position(|&byte| byte == b':') {
            Some(colon) => Self { key: &line[..colon], value: &line[colon + 1..] },
            None => Self { key: line, value: &[] },
        }
    }

    /// Whether the field's key is `key`, in any case.
    pub fn is(&self, key: &str) -> bool {
        self.key.eq_ignore_ascii_case(key.as_bytes())
    }

    /// Whether this is an empty line: no key, no value, no meaning.
    pub fn is_blank(&self) -> bool {
        self.key.is_empty() && self.value.is_empty()
    }
}

/// The lines of a header's body, in order.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    /// What is not yet read; `None` after the last line. (An empty rest is one more, empty, line.)
    rest: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { rest: Some(body) }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let rest = self.rest?;
        let end = rest.windows(2).position(|pair| pair == b"\r\n");
        self.rest = end.map(|end| &rest[end + 2..]);
        Some(Field::from_line(end.map_or(rest, |end| &rest[..end])))
    }
}

impl core::iter::FusedIterator for Fields<'_> {}

/// `value` without the spaces, tabs and line ends around it.
pub(super) fn trim(value: &[u8]) -> &[u8] {
    const BLANK: [u8; 4] = *b" \t\r\n";
    let Some(start) = value.iter().position(|byte| !BLANK.contains(byte)) else {
        return &[];
    };
    let end = value.iter().rposition(|byte| !BLANK.contains(byte)).map_or(start, |last| last + 1);
    &value[start..end]
}
