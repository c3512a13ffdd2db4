//! From a text to its number, and back.
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::AsArray as _;
use datafusion::arrow::datatypes::{DataType, UInt32Type};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::texts::Texts;

/// Makes a function of one argument, which is another one for other texts.
macro_rules! function {
    ($(#[$doc:meta])* $type:ident, $name:literal, $of:expr => $result:expr, $evaluate:expr) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $type {
            texts: Arc<Texts>,
            signature: Signature,
        }

        impl $type {
            pub(super) fn new(texts: Arc<Texts>) -> Self {
                let signature = Signature::exact(vec![$of], Volatility::Immutable);
                Self { texts, signature }
            }
        }

        impl PartialEq for $type {
            fn eq(&self, other: &Self) -> bool {
                Arc::ptr_eq(&self.texts, &other.texts)
            }
        }

        impl Eq for $type {}

        impl Hash for $type {
            fn hash<H: Hasher>(&self, state: &mut H) {
                Arc::as_ptr(&self.texts).hash(state);
            }
        }

        impl ScalarUDFImpl for $type {
            fn name(&self) -> &'static str {
                $name
            }

            fn signature(&self) -> &Signature {
                &self.signature
            }

            fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
                Ok($result)
            }

            fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
                let [argument] = args.args.as_slice() else {
                    return exec_err!(concat!($name, " takes one argument"));
                };
                let array = argument.to_array(args.number_rows)?;
                let evaluate: fn(&Texts, &dyn datafusion::arrow::array::Array) -> Result<_> = $evaluate;
                Ok(ColumnarValue::Array(evaluate(&self.texts, &array)?))
            }
        }
    };
}

function!(
    /// The number of a text.
    NumberOf,
    "number_of",
    DataType::Utf8View => DataType::UInt32,
    |texts, array| Ok(Arc::new(texts.numbers(array.as_string_view())?))
);

function!(
    /// The text that has a number.
    TextOf,
    "text_of",
    DataType::UInt32 => DataType::Utf8View,
    |texts, array| texts.texts(array.as_primitive::<UInt32Type>())
);
