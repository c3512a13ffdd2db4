//! Functions of addresses.
use std::net::IpAddr;
use std::sync::Arc;

use datafusion::arrow::array::BooleanArray;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use ipnet::IpNet;

use super::texts;

/// `is_subnet_of(block, address)`; NULL if the address is none.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct IsSubnetOf {
    signature: Signature,
}

impl IsSubnetOf {
    pub(crate) fn new() -> Self {
        Self {
            signature: Signature::string(2, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for IsSubnetOf {
    fn name(&self) -> &'static str {
        "is_subnet_of"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [blocks, addresses] = args.args.as_slice() else {
            return exec_err!("is_subnet_of takes a CIDR block and an address");
        };
        let addresses = texts(addresses, args.number_rows)?;
        let found: BooleanArray = if let ColumnarValue::Scalar(block) = blocks {
            // The usual case: one block for all rows.
            let block = match scalar_text(block) {
                Some(text) => Some(parse(text)?),
                None => None,
            };
            addresses
                .iter()
                .map(|address| Some(block?.contains(&address?.parse::<IpAddr>().ok()?)))
                .collect()
        } else {
            let blocks = texts(blocks, args.number_rows)?;
            let contains =
                |(block, address): (Option<&str>, Option<&str>)| -> Result<Option<bool>> {
                    let (Some(block), Some(address)) = (block, address) else {
                        return Ok(None);
                    };
                    let block = parse(block)?;
                    Ok(address
                        .parse::<IpAddr>()
                        .ok()
                        .map(|address| block.contains(&address)))
                };
            blocks
                .iter()
                .zip(addresses.iter())
                .map(contains)
                .collect::<Result<_>>()?
        };
        Ok(ColumnarValue::Array(Arc::new(found)))
    }
}

fn scalar_text(value: &ScalarValue) -> Option<&str> {
    value.try_as_str().flatten()
}

fn parse(block: &str) -> Result<IpNet> {
    let parsed = block
        .parse::<IpNet>()
        .or_else(|error| block.parse::<IpAddr>().map(IpNet::from).map_err(|_| error));
    parsed.or_else(|_| {
        exec_err!(
            "is_subnet_of: \"{}\" is no CIDR block, as 10.0.0.0/8",
            block.escape_debug()
        )
    })
}

/// `is_private(address)`; NULL if the address is none.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct IsPrivate {
    signature: Signature,
}

impl IsPrivate {
    pub(crate) fn new() -> Self {
        Self {
            signature: Signature::string(1, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for IsPrivate {
    fn name(&self) -> &'static str {
        "is_private"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [addresses] = args.args.as_slice() else {
            return exec_err!("is_private takes an address");
        };
        let addresses = texts(addresses, args.number_rows)?;
        let found: BooleanArray = addresses
            .iter()
            .map(|address| address?.parse().ok().map(is_private))
            .collect();
        Ok(ColumnarValue::Array(Arc::new(found)))
    }
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_private(),
        IpAddr::V6(address) => address
            .to_ipv4_mapped()
            .map_or_else(|| address.is_unique_local(), |mapped| mapped.is_private()),
    }
}
