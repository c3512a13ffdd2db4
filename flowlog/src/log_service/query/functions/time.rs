//! Functions of times.
use std::fmt::Write as _;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, FieldRef, TimeUnit, TimestampMillisecondType, TimestampSecondType,
};
use datafusion::arrow::temporal_conversions::timestamp_ms_to_datetime;
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::functions::datetime::date_trunc::DateTruncFunc;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

/// What a number of Unix seconds is.
const SECONDS: DataType = DataType::Timestamp(TimeUnit::Second, None);
const MILLISECONDS: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);

/// The type of time that a value is taken for: numbers are Unix seconds, text is a time as in ISO 8601.
fn time_of(function: &str, given: &DataType) -> Result<DataType> {
    match given {
        DataType::Timestamp(_, _) => Ok(given.clone()),
        number if number.is_integer() || number.is_null() => Ok(SECONDS),
        DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Date32
        | DataType::Date64 => Ok(MILLISECONDS),
        other => {
            plan_err!("{function}: a time is expected, or a number of Unix seconds; found {other}")
        }
    }
}

/// `from_unixtime(seconds)`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct FromUnixtime {
    signature: Signature,
}

impl FromUnixtime {
    pub(crate) fn new() -> Self {
        Self {
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for FromUnixtime {
    fn name(&self) -> &'static str {
        "from_unixtime"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        match given {
            [seconds] if seconds.is_numeric() || seconds.is_null() => Ok(vec![DataType::Int64]),
            _ => plan_err!("from_unixtime takes a number of Unix seconds"),
        }
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(SECONDS)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.as_slice() {
            [ColumnarValue::Scalar(seconds)] => {
                Ok(ColumnarValue::Scalar(seconds.cast_to(&SECONDS)?))
            }
            [ColumnarValue::Array(seconds)] => Ok(ColumnarValue::Array(cast(seconds, &SECONDS)?)),
            _ => exec_err!("from_unixtime takes a number of Unix seconds"),
        }
    }
}

/// `date_trunc(unit, time)`: DataFusion's, which also takes Unix seconds.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct DateTrunc {
    signature: Signature,
    inner: DateTruncFunc,
}

impl DateTrunc {
    pub(crate) fn new() -> Self {
        Self {
            signature: Signature::user_defined(Volatility::Immutable),
            inner: DateTruncFunc::new(),
        }
    }
}

impl ScalarUDFImpl for DateTrunc {
    fn name(&self) -> &'static str {
        "date_trunc"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        match given {
            [unit, time] if unit.is_string() => {
                Ok(vec![DataType::Utf8, time_of("date_trunc", time)?])
            }
            _ => plan_err!("date_trunc takes a unit as 'hour' and a time"),
        }
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match arguments {
            [_, time] => Ok(time.clone()),
            _ => plan_err!("date_trunc takes a unit as 'hour' and a time"),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.inner.invoke_with_args(args)
    }
}

/// `date_format(time, format)`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct DateFormat {
    signature: Signature,
}

impl DateFormat {
    pub(crate) fn new() -> Self {
        Self {
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for DateFormat {
    fn name(&self) -> &'static str {
        "date_format"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        match given {
            [time, format] if format.is_string() => {
                Ok(vec![time_of(self.name(), time)?, DataType::Utf8])
            }
            _ => plan_err!("date_format takes a time and a format, as '%Y-%m-%d %H:%i:%s'"),
        }
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [time, ColumnarValue::Scalar(ScalarValue::Utf8(Some(format)))] = args.args.as_slice()
        else {
            return exec_err!(
                "date_format takes a time and a format that is the same for all rows"
            );
        };
        let format = strftime(format)?;
        let times = milliseconds(&time.to_array(args.number_rows)?)?;
        let times = times.as_primitive::<TimestampMillisecondType>();
        let mut text = String::new();
        let mut formatted = |time: Option<i64>| -> Result<Option<String>> {
            let Some(time) = time.and_then(timestamp_ms_to_datetime) else {
                return Ok(None);
            };
            text.clear();
            match write!(text, "{}", time.format(&format)) {
                Ok(()) => Ok(Some(text.clone())),
                Err(_) => exec_err!("date_format: the format cannot be used"),
            }
        };
        let all = times
            .iter()
            .map(&mut formatted)
            .collect::<Result<StringArray>>()?;
        Ok(ColumnarValue::Array(Arc::new(all)))
    }
}

/// Times in milliseconds; seconds that are too far away for that are NULL.
fn milliseconds(times: &ArrayRef) -> Result<ArrayRef> {
    if times.data_type() == &SECONDS {
        let seconds = times.as_primitive::<TimestampSecondType>();
        return Ok(Arc::new(seconds.unary_opt::<_, TimestampMillisecondType>(
            |seconds| seconds.checked_mul(1000),
        )));
    }
    Ok(cast(times, &MILLISECONDS)?)
}

/// The format of MySQL and Presto as chrono's.
fn strftime(format: &str) -> Result<String> {
    let mut result = String::with_capacity(format.len());
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            result.push(character);
            continue;
        }
        result.push_str(match characters.next() {
            Some('a') => "%a",
            Some('b') => "%b",
            Some('c') => "%-m",
            Some('d') => "%d",
            Some('e') => "%-d",
            Some('f') => "%6f",
            Some('H') => "%H",
            Some('h' | 'I') => "%I",
            Some('i') => "%M",
            Some('j') => "%j",
            Some('k') => "%-H",
            Some('l') => "%-I",
            Some('M') => "%B",
            Some('m') => "%m",
            Some('p') => "%p",
            Some('r') => "%I:%M:%S %p",
            Some('S' | 's') => "%S",
            Some('T') => "%H:%M:%S",
            Some('v') => "%V",
            Some('W') => "%A",
            Some('x') => "%G",
            Some('Y') => "%Y",
            Some('y') => "%y",
            Some('%') => "%%",
            Some(other) => {
                return exec_err!("date_format: %{other} is not known; known are %a %b %c %d %e %f %H %h %I %i %j %k %l %M %m %p %r %S %s %T %v %W %x %Y %y %%");
            }
            None => return exec_err!("date_format: the format ends with %; for the sign itself write %%"),
        });
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_those_of_mysql() {
        let format = strftime("%Y-%m-%d %H:%i:%s %c/%e %k:%l %p %M %W %j %T 100%%").unwrap();
        let time = timestamp_ms_to_datetime(1_700_000_000_000).unwrap();
        assert_eq!(
            time.format(&format).to_string(),
            "2023-11-14 22:13:20 11/14 22:10 PM November Tuesday 318 22:13:20 100%"
        );
        assert!(strftime("%q").is_err());
        assert!(strftime("%").is_err());
    }
}
