//! As much of JSON Schema as `postrider schema` uses; a keyword beyond that stops the test.

use serde_json::{Map, Value};

/// Whether `value` is valid.
pub fn accepts(root: &Value, value: &Value) -> bool {
    Check { root }.schema(root, value)
}

struct Check<'a> {
    root: &'a Value,
}

impl Check<'_> {
    fn schema(&self, schema: &Value, value: &Value) -> bool {
        let schema = schema.as_object().unwrap();
        schema
            .iter()
            .all(|(keyword, asked)| self.keyword(schema, keyword, asked, value))
    }

    fn keyword(
        &self,
        schema: &Map<String, Value>,
        keyword: &str,
        asked: &Value,
        value: &Value,
    ) -> bool {
        match keyword {
            "$ref" => {
                let pointer = asked.as_str().unwrap().trim_start_matches('#');
                self.schema(self.root.pointer(pointer).unwrap(), value)
            }
            "anyOf" => items(asked).iter().any(|one| self.schema(one, value)),
            "type" => match asked.as_str() {
                Some(name) => is(name, value),
                None => items(asked)
                    .iter()
                    .any(|name| is(name.as_str().unwrap(), value)),
            },
            "enum" => items(asked).contains(value),
            "required" => value.as_object().is_none_or(|object| {
                let mut names = items(asked).iter().map(|name| name.as_str().unwrap());
                names.all(|name| object.contains_key(name))
            }),
            "properties" => value.as_object().is_none_or(|object| {
                object.iter().all(|(name, value)| {
                    let known = asked.get(name);
                    known.is_none_or(|schema| self.schema(schema, value))
                })
            }),
            "additionalProperties" => {
                let known = schema.get("properties").and_then(Value::as_object);
                asked.as_bool().unwrap()
                    || value.as_object().is_none_or(|object| {
                        let known = known.unwrap();
                        object.keys().all(|name| known.contains_key(name))
                    })
            }
            "items" => value
                .as_array()
                .is_none_or(|array| array.iter().all(|value| self.schema(asked, value))),
            "minLength" => chars(value).is_none_or(|chars| chars >= asked.as_u64().unwrap()),
            "maxLength" => chars(value).is_none_or(|chars| chars <= asked.as_u64().unwrap()),
            "minimum" => value
                .as_f64()
                .is_none_or(|number| number >= asked.as_f64().unwrap()),
            // Exact: a float has no room for the largest int64.
            "maximum" => value.as_number().is_none_or(|_| {
                value
                    .as_i64()
                    .is_some_and(|int| int <= asked.as_i64().unwrap())
            }),
            "pattern" => {
                let (first, rest) = match asked.as_str().unwrap() {
                    "^[a-z0-9][a-z0-9_-]*$" => ("", "_-"),
                    "^[a-z0-9-]+$" => ("-", "-"),
                    other => panic!("{other}"),
                };
                value.as_str().is_none_or(|text| {
                    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
                    text.starts_with(|c| word(c) || first.contains(c))
                        && text.chars().all(|c| word(c) || rest.contains(c))
                })
            }
            "format" => {
                assert!(asked == "int64" || asked == "date-time");
                asked != "date-time"
                    || value
                        .as_str()
                        .is_none_or(|text| text.parse::<jiff::Timestamp>().is_ok())
            }
            "$schema" | "$defs" | "title" | "description" | "default" => true,
            _ => panic!("the schema says `{keyword}`, which this check does not know"),
        }
    }
}

fn is(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        // JSON Schema would also take `1.0`; the parser wants it written as an integer.
        "integer" => value.is_i64() || value.is_u64(),
        _ => panic!("the schema names the type `{name}`"),
    }
}

fn items(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn chars(value: &Value) -> Option<u64> {
    value.as_str().map(|text| text.chars().count() as u64)
}
