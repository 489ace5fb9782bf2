//! The scalar functions: names, numbers of arguments, and what is refused by name.

/// A scalar function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Function {
    /// `ABS`: absolute value.
    Abs,
    /// `CEILING`: smallest whole number not below.
    Ceiling,
    /// `EXP`: e to the power.
    Exp,
    /// `FLOOR`: largest whole number not above.
    Floor,
    /// `POWER`: a number to a power.
    Power,
    /// `SIGN`: -1, 0 or 1.
    Sign,
    /// `SQUARE`: square.
    Square,
    /// `SQRT`: square root.
    Sqrt,
    /// `ROUND`: rounds to digits; a third argument other than 0 truncates.
    Round,
    /// `CHARINDEX`: place of a text in a text, from 1.
    CharIndex,
    /// `CONCAT`: joins; NULL is empty.
    Concat,
    /// `CONCAT_WS`: joins with a separator; NULL is left out.
    ConcatWs,
    /// `LEFT`: first characters.
    Left,
    /// `LEN`: characters without trailing blanks.
    Len,
    /// `LOWER`: lower case.
    Lower,
    /// `LTRIM`: without leading blanks.
    Ltrim,
    /// `NCHAR`: character of a code point.
    Nchar,
    /// `PATINDEX`: place of a pattern in a text, from 1.
    PatIndex,
    /// `REGEXMATCH`: place of the first match of a regular expression, from 1.
    RegexMatch,
    /// `REPLACE`: replaces every occurrence.
    Replace,
    /// `REPLICATE`: repeats.
    Replicate,
    /// `REVERSE`: reverses.
    Reverse,
    /// `RIGHT`: last characters.
    Right,
    /// `RTRIM`: without trailing blanks.
    Rtrim,
    /// `SPACE`: blanks.
    Space,
    /// `STUFF`: replaces a range of characters.
    Stuff,
    /// `SUBSTRING`: characters from a place, from 1.
    Substring,
    /// `TRANSLATE`: replaces characters one by one.
    Translate,
    /// `TRIM`: without blanks around.
    Trim,
    /// `UNICODE`: code point of the first character.
    Unicode,
    /// `UPPER`: upper case.
    Upper,
    /// `GETTYPE`: name of a value's type.
    GetType,
    /// `COALESCE`: first that is not NULL.
    Coalesce,
    /// `NULLIF`: NULL where both are equal.
    NullIf,
    /// `DATEADD`: a datetime moved.
    DateAdd,
    /// `DATEDIFF`: boundaries crossed between two datetimes.
    DateDiff,
    /// `DATENAME`: a part as text.
    DateName,
    /// `DATEPART`: a part as a number.
    DatePart,
    /// `YEAR`: year.
    Year,
    /// `MONTH`: month.
    Month,
    /// `DAY`: day of the month.
    Day,
    /// `DATETIMEFROMPARTS`: a datetime of year, month, day, hour, minute, second and millisecond.
    DateTimeFromParts,
    /// `GETARRAYELEMENT`: element by its index from 0.
    GetArrayElement,
    /// `GETARRAYLENGTH`: number of elements.
    GetArrayLength,
    /// `GETRECORDPROPERTYVALUE`: field by name; dots descend.
    GetRecordPropertyValue,
}

pub(crate) struct Signature {
    pub(crate) function: Function,
    pub(crate) name: &'static str,
    pub(crate) least: usize,
    pub(crate) most: usize,
    /// The first argument is a unit.
    pub(crate) dated: bool,
}

const fn signature(function: Function, name: &'static str, least: usize, most: usize) -> Signature {
    Signature { function, name, least, most, dated: false }
}

const fn dated(function: Function, name: &'static str, arguments: usize) -> Signature {
    Signature { function, name, least: arguments, most: arguments, dated: true }
}

pub(crate) const SIGNATURES: &[Signature] = &[
    signature(Function::Abs, "ABS", 1, 1),
    signature(Function::Ceiling, "CEILING", 1, 1),
    signature(Function::Exp, "EXP", 1, 1),
    signature(Function::Floor, "FLOOR", 1, 1),
    signature(Function::Power, "POWER", 2, 2),
    signature(Function::Sign, "SIGN", 1, 1),
    signature(Function::Square, "SQUARE", 1, 1),
    signature(Function::Sqrt, "SQRT", 1, 1),
    signature(Function::Round, "ROUND", 2, 3),
    signature(Function::CharIndex, "CHARINDEX", 2, 3),
    signature(Function::Concat, "CONCAT", 2, 254),
    signature(Function::ConcatWs, "CONCAT_WS", 3, 254),
    signature(Function::Left, "LEFT", 2, 2),
    signature(Function::Len, "LEN", 1, 1),
    signature(Function::Lower, "LOWER", 1, 1),
    signature(Function::Ltrim, "LTRIM", 1, 1),
    signature(Function::Nchar, "NCHAR", 1, 1),
    signature(Function::PatIndex, "PATINDEX", 2, 2),
    signature(Function::RegexMatch, "REGEXMATCH", 2, 2),
    signature(Function::Replace, "REPLACE", 3, 3),
    signature(Function::Replicate, "REPLICATE", 2, 2),
    signature(Function::Reverse, "REVERSE", 1, 1),
    signature(Function::Right, "RIGHT", 2, 2),
    signature(Function::Rtrim, "RTRIM", 1, 1),
    signature(Function::Space, "SPACE", 1, 1),
    signature(Function::Stuff, "STUFF", 4, 4),
    signature(Function::Substring, "SUBSTRING", 3, 3),
    signature(Function::Translate, "TRANSLATE", 3, 3),
    signature(Function::Trim, "TRIM", 1, 1),
    signature(Function::Unicode, "UNICODE", 1, 1),
    signature(Function::Upper, "UPPER", 1, 1),
    signature(Function::GetType, "GETTYPE", 1, 1),
    signature(Function::Coalesce, "COALESCE", 1, 254),
    signature(Function::NullIf, "NULLIF", 2, 2),
    dated(Function::DateAdd, "DATEADD", 3),
    dated(Function::DateDiff, "DATEDIFF", 3),
    dated(Function::DateName, "DATENAME", 2),
    dated(Function::DatePart, "DATEPART", 2),
    signature(Function::Year, "YEAR", 1, 1),
    signature(Function::Month, "MONTH", 1, 1),
    signature(Function::Day, "DAY", 1, 1),
    signature(Function::DateTimeFromParts, "DATETIMEFROMPARTS", 7, 7),
    signature(Function::GetArrayElement, "GETARRAYELEMENT", 2, 2),
    signature(Function::GetArrayLength, "GETARRAYLENGTH", 1, 1),
    signature(Function::GetRecordPropertyValue, "GETRECORDPROPERTYVALUE", 2, 2),
];

/// Names that exist in the reference but not here, with what to do instead.
pub(crate) const REFUSED: &[(&str, &str)] = &[
    ("LAG", "analytic functions are not there yet; aggregate in a window"),
    ("LAST", "analytic functions are not there yet; TOPONE() OVER (ORDER BY … DESC) in a window gives the last event"),
    ("ISFIRST", "analytic functions are not there yet; TOPONE() OVER (ORDER BY …) in a window gives the first event"),
    ("MATCH_RECOGNIZE", "patterns are not there yet; aggregate in a session window"),
    ("CONVERT", "write CAST(x AS type)"),
    ("TRY_CONVERT", "write TRY_CAST(x AS type)"),
    ("IIF", "write CASE WHEN … THEN … ELSE … END"),
    ("ISNULL", "write COALESCE(x, y)"),
    ("GETDATE", "a query has no clock; System.Timestamp() is the time of the event or window"),
    ("GETUTCDATE", "a query has no clock; System.Timestamp() is the time of the event or window"),
    ("NEWID", "results must be the same when they are computed again"),
    ("RAND", "results must be the same when they are computed again"),
    ("GETMETADATAPROPERTYVALUE", "put the property into the message body"),
    ("ANOMALYDETECTION_SPIKEANDDIP", "models are not part of this language"),
    ("ANOMALYDETECTION_CHANGEPOINT", "models are not part of this language"),
    ("CREATEPOINT", "geospatial functions are not there"),
    ("CREATEPOLYGON", "geospatial functions are not there"),
    ("CREATELINESTRING", "geospatial functions are not there"),
    ("ST_DISTANCE", "geospatial functions are not there"),
    ("ST_WITHIN", "geospatial functions are not there"),
    ("ST_INTERSECTS", "geospatial functions are not there"),
    ("ST_OVERLAPS", "geospatial functions are not there"),
    ("HASHBYTES", "hash in the producer, or in a handler"),
    ("ROW_NUMBER", "COLLECTTOP(n) OVER (ORDER BY …) ranks the events of a window"),
    ("RANK", "COLLECTTOP(n) OVER (ORDER BY …) ranks the events of a window"),
];

impl Function {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        SIGNATURES.iter().find(|s| s.function == self).map_or("", |s| s.name)
    }
}

pub(crate) fn find(upper: &str) -> Option<&'static Signature> {
    SIGNATURES.iter().find(|s| s.name == upper)
}

pub(crate) fn refused(upper: &str) -> Option<&'static str> {
    REFUSED.iter().find(|(name, _)| *name == upper).map(|(_, hint)| *hint)
}

/// The known name nearest to a wrong one, if any is near.
pub(crate) fn nearest(upper: &str, more: &[&'static str]) -> Option<&'static str> {
    SIGNATURES
        .iter()
        .map(|s| s.name)
        .chain(more.iter().copied())
        .map(|name| (distance(upper, name), name))
        .filter(|(d, name)| *d <= 1 + name.len() / 4)
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein distance.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
