//! [`Shape`] → JSON Schema (draft 2020-12), for editors.

use serde_json::{Map, Value, json};

use super::{Fields, Shape};

/// The JSON Schema of a document of `shape`. `title` stands at its top.
///
/// Says the same as the reader, but for what a schema can't: whether a name exists.
#[must_use]
pub fn schema(title: &str, shape: &Shape) -> Value {
    let mut definitions = Map::new();
    let mut root = describe(shape, &mut definitions);
    if let Value::Object(members) = &mut root {
        members.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
        members.insert("title".into(), title.into());
        if !definitions.is_empty() {
            members.insert("$defs".into(), Value::Object(definitions));
        }
    }
    root
}

fn describe(shape: &Shape, definitions: &mut Map<String, Value>) -> Value {
    match shape {
        Shape::Text | Shape::Secret => json!({ "type": "string", "minLength": 1 }),
        Shape::Name => {
            json!({ "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_./-]*$", "maxLength": 128 })
        }
        Shape::Integer(least, most) => {
            json!({ "type": "integer", "minimum": least, "maximum": most })
        }
        Shape::Number => json!({ "type": "integer" }),
        Shape::Boolean => json!({ "type": "boolean" }),
        Shape::Constant(number) => json!({ "const": number }),
        Shape::True => json!({ "const": true }),
        Shape::Duration => {
            json!({ "type": "string", "pattern": "^0*[1-9][0-9]*[smhd]$", "examples": ["15m", "1h"] })
        }
        Shape::Date => json!({ "type": "string", "format": "date" }),
        Shape::Choice(words) => {
            let one = |(word, doc): &(&str, &str)| json!({ "const": word, "description": doc });
            json!({ "oneOf": words.iter().map(one).collect::<Vec<_>>() })
        }
        Shape::List(element, least) => {
            json!({ "type": "array", "items": describe(element, definitions), "minItems": least })
        }
        Shape::Map(fields) => object(fields, None, definitions),
        Shape::Table { value, reserved, least } => {
            let value = describe(value, definitions);
            let mut table =
                json!({ "type": "object", "additionalProperties": value, "minProperties": least });
            if !reserved.is_empty()
                && let Some(members) = table.as_object_mut()
            {
                members.insert("propertyNames".into(), json!({ "not": { "enum": reserved } }));
            }
            table
        }
        Shape::Tagged { tag, cases } => {
            let cases: Vec<Value> = cases
                .iter()
                .map(|(word, fields)| object(fields, Some((tag, word)), definitions))
                .collect();
            json!({ "type": "object", "oneOf": cases })
        }
        Shape::Either(shapes) => {
            let shapes: Vec<Value> =
                shapes.iter().map(|shape| describe(shape, definitions)).collect();
            json!({ "anyOf": shapes })
        }
        Shape::Named(name, shape) => {
            if !definitions.contains_key(*name) {
                // The name is taken before its shape is described: a shape may hold itself.
                definitions.insert((*name).to_owned(), Value::Null);
                let described = describe(shape, definitions);
                definitions.insert((*name).to_owned(), described);
            }
            json!({ "$ref": format!("#/$defs/{name}") })
        }
        Shape::Any => json!({}),
    }
}

fn object(
    Fields { what, fields }: &Fields,
    tag: Option<(&str, &str)>,
    definitions: &mut Map<String, Value>,
) -> Value {
    let mut properties = Map::new();
    for field in *fields {
        let mut described = match tag {
            Some((name, word)) if name == field.name => json!({ "const": word }),
            _ => describe(&field.shape, definitions),
        };
        if let Value::Object(members) = &mut described {
            members.insert("description".into(), field.doc.into());
        }
        properties.insert(field.name.to_owned(), described);
    }
    let required: Vec<&str> =
        fields.iter().filter(|field| field.required).map(|field| field.name).collect();
    json!({
        "type": "object",
        "description": what,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}
