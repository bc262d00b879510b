//! Objects of kinds that the manifests define themselves.

use std::collections::BTreeMap;

use serde_json::Value;

/// The schemas of CustomResourceDefinitions.
pub struct Schemas(BTreeMap<(String, String), Value>);

impl Schemas {
    /// Those that are among some objects.
    pub fn of<'a>(objects: impl Iterator<Item = &'a Value>) -> Self {
        let mut schemas = BTreeMap::new();
        for definition in objects.filter(|object| object["kind"] == "CustomResourceDefinition") {
            let spec = &definition["spec"];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            for version in spec["versions"].as_array().into_iter().flatten() {
                let api_version = format!("{}/{}", text(&spec["group"]), text(&version["name"]));
                let kind = text(&spec["names"]["kind"]);
                schemas.insert((api_version, kind), version["schema"]["openAPIV3Schema"].clone());
            }
        }
        Self(schemas)
    }

    /// What a server would refuse of an object, rules (CEL) apart; none if its kind is defined here nowhere.
    pub fn mistakes(&self, object: &Value) -> Option<Vec<String>> {
        let text = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
        let schema = self.0.get(&(text("apiVersion"), text("kind")))?;
        let mut mistakes = Vec::new();
        check(&text("kind"), schema, object, true, &mut mistakes);
        Some(mistakes)
    }
}

fn check(at: &str, schema: &Value, value: &Value, is_object: bool, mistakes: &mut Vec<String>) {
    let typed = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("boolean") => value.is_boolean(),
        _ => true,
    };
    if !typed {
        mistakes.push(format!("{at} is no {}", schema["type"]));
    }
    if let Some(values) = schema["enum"].as_array()
        && !values.contains(value)
    {
        mistakes.push(format!("{at} is {value}, which is none of {}", schema["enum"]));
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.get(name).is_none() {
            mistakes.push(format!("{at} has no {name}"));
        }
    }
    for (name, inner) in value.as_object().into_iter().flatten() {
        let known = &schema["properties"][name];
        if known.is_null() {
            // What every object has, and no definition says.
            let usual = is_object && matches!(name.as_str(), "apiVersion" | "kind" | "metadata");
            if !usual && schema["additionalProperties"].is_null() {
                mistakes.push(format!("{at} has an unknown field {name}"));
            }
        } else {
            check(&format!("{at}.{name}"), known, inner, false, mistakes);
        }
    }
    for inner in value.as_array().into_iter().flatten() {
        check(&format!("{at}[]"), &schema["items"], inner, false, mistakes);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_server_would_refuse_is_seen() {
        let schema = json!({"type": "object", "required": ["spec"], "properties": {"spec": {
            "type": "object", "properties": {
                "on": {"type": "string", "enum": ["A", "B"]}, "all": {"type": "array", "items": {"type": "integer"}},
            },
        }}});
        let definition = json!({"kind": "CustomResourceDefinition", "spec": {
            "group": "example.org", "names": {"kind": "Thing"},
            "versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema}}],
        }});
        let schemas = Schemas::of([definition].iter());
        let mistakes = |spec: Value| {
            let object = json!({"apiVersion": "example.org/v1", "kind": "Thing", "metadata": {"name": "x"}, "spec": spec});
            schemas.mistakes(&object).expect("a kind that is defined")
        };
        assert_eq!(mistakes(json!({"on": "A", "all": [1, 2]})), [""; 0]);
        for wrong in [json!({"on": "C"}), json!({"off": "A"}), json!({"all": ["1"]}), json!({"all": 1})] {
            assert_eq!(mistakes(wrong.clone()).len(), 1, "{wrong}");
        }
        assert_eq!(schemas.mistakes(&json!({"apiVersion": "v1", "kind": "Pod"})), None);
        assert_eq!(
            schemas.mistakes(&json!({"apiVersion": "example.org/v1", "kind": "Thing"})).map(|it| it.len()),
            Some(1)
        );
    }
}
