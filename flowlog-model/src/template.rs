//! Templates of text records, as in `${srcaddr} ${dstaddr}`: fields in `${…}`, and literal text between them.
//!
//! A `$` that no `{` follows is literal. Control characters are refused, so that a record stays one line.
use crate::field::Field;
use crate::text::{Text, in_words};

/// Longest template, in bytes.
pub const MAX_TEMPLATE_BYTES: usize = 4096;

/// Why a template was refused. Positions are in characters and begin at 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// `${` without `}`.
    #[error(
        "`${{` at character {position} has no `}}`: allowed are {} in `${{…}}`",
        all_fields()
    )]
    Unclosed {
        /// Where `${` stands.
        position: usize,
    },
    /// A name that is no field's.
    #[error("`{}` at character {position} is not a field: {}", .name.escape_debug(), Field::allowed())]
    UnknownField {
        /// The name.
        name: String,
        /// Where the name begins.
        position: usize,
    },
    /// A line break or another control character.
    #[error(
        "there is a control character at character {position}: allowed are fields in `${{…}}` and printable text"
    )]
    Control {
        /// Where it stands.
        position: usize,
    },
    /// No field at all: every record would be the same.
    #[error("it names no field: allowed are {} in `${{…}}`", all_fields())]
    NoField,
    /// Longer than [`MAX_TEMPLATE_BYTES`].
    #[error("it is too long: allowed are {MAX_TEMPLATE_BYTES} bytes")]
    TooLong,
}

fn all_fields() -> String {
    in_words(Field::ALL.iter().map(|field| field.as_str()))
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// Text that every record has.
    Literal(&'a str),
    /// A field of the record.
    Field(Field),
}

/// Takes a template apart.
pub(crate) fn parse(template: &str) -> Result<Vec<Part<'_>>, TemplateError> {
    if template.len() > MAX_TEMPLATE_BYTES {
        return Err(TemplateError::TooLong);
    }
    if let Some(index) = template.chars().position(char::is_control) {
        return Err(TemplateError::Control {
            position: index + 1,
        });
    }
    let mut parts = Vec::new();
    let mut rest = template;
    // Characters of the template that lie before `rest`.
    let mut chars_before = 0;
    while let Some((literal, opened)) = rest.split_once("${") {
        let position = chars_before + literal.chars().count() + 1;
        let (name, after) = opened
            .split_once('}')
            .ok_or(TemplateError::Unclosed { position })?;
        let unknown = || TemplateError::UnknownField {
            name: name.to_owned(),
            position: position + 2,
        };
        let field = Field::from_text(name).ok_or_else(unknown)?;
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        parts.push(Part::Field(field));
        chars_before = position + 2 + name.chars().count();
        rest = after;
    }
    if parts.is_empty() {
        return Err(TemplateError::NoField);
    }
    if !rest.is_empty() {
        parts.push(Part::Literal(rest));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts() {
        use Part::Literal;
        let field = Part::Field;
        assert_eq!(parse("${srcaddr}").unwrap(), [field(Field::SrcAddr)]);
        assert_eq!(
            parse("from ${srcaddr}→${dstaddr}$5}").unwrap(),
            [
                Literal("from "),
                field(Field::SrcAddr),
                Literal("→"),
                field(Field::DstAddr),
                Literal("$5}")
            ]
        );
    }

    #[test]
    fn errors_have_a_position_and_say_what_is_allowed() {
        let cases = [
            (
                "${srcaddr} ${dstaddr",
                TemplateError::Unclosed { position: 12 },
            ),
            (
                "→ ${srcadr}",
                TemplateError::UnknownField {
                    name: "srcadr".into(),
                    position: 5,
                },
            ),
            (
                "${srcaddr}→${}",
                TemplateError::UnknownField {
                    name: String::new(),
                    position: 14,
                },
            ),
            (
                "${ srcaddr}",
                TemplateError::UnknownField {
                    name: " srcaddr".into(),
                    position: 3,
                },
            ),
            ("${srcaddr}\n", TemplateError::Control { position: 11 }),
            ("srcaddr", TemplateError::NoField),
            ("", TemplateError::NoField),
            (&"x".repeat(4097), TemplateError::TooLong),
        ];
        for (template, expected) in cases {
            let error = parse(template).unwrap_err();
            assert_eq!(error, expected, "{template:?}");
            let sentence = error.to_string();
            assert!(sentence.contains("allowed are"), "{sentence}");
            assert!(!sentence.contains('\n'), "{sentence}");
        }
        let unclosed = parse("${x").unwrap_err().to_string();
        assert!(
            unclosed.starts_with("`${` at character 1 has no `}`: allowed are version, "),
            "{unclosed}"
        );
    }
}
