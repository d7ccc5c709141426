//! CRI messages as JSON, in the form that protobuf prescribes and crictl prints: camelCase
//! names, 64-bit integers as strings, enums by name, defaults included.

use std::collections::BTreeMap;

use anyhow::{Context, anyhow};
use api::DESCRIPTORS;
use prost::Name;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage,
};
use serde_json::{Map, Value, json};

/// A message as JSON.
pub(crate) fn message<M: Name>(message: &M) -> anyhow::Result<Value> {
    let pool = DescriptorPool::decode(DESCRIPTORS).context("the interface's own description")?;
    let name = M::full_name();
    let kind = pool.get_message_by_name(&name).ok_or_else(|| anyhow!("no message {name}"))?;
    let dynamic = DynamicMessage::decode(kind, message.encode_to_vec().as_slice())?;
    Ok(fields(&dynamic))
}

/// A status with its verbose information beside it; entries that are JSON are taken apart.
pub(crate) fn inspection<M: Name>(
    status: &M,
    info: BTreeMap<String, String>,
) -> anyhow::Result<Value> {
    let mut all = Map::new();
    all.insert("status".into(), message(status)?);
    for (key, text) in info {
        let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        all.insert(key, value);
    }
    Ok(Value::Object(all))
}

fn fields(message: &DynamicMessage) -> Value {
    let mut object = Map::new();
    for field in message.descriptor().fields() {
        if field.supports_presence() && !message.has_field(&field) {
            continue;
        }
        object.insert(field.json_name().to_owned(), value(&field, &message.get_field(&field)));
    }
    Value::Object(object)
}

fn value(field: &FieldDescriptor, value: &prost_reflect::Value) -> Value {
    use prost_reflect::Value as Wire;
    match value {
        Wire::Bool(yes) => json!(yes),
        Wire::I32(number) => json!(number),
        Wire::U32(number) => json!(number),
        Wire::F32(number) => json!(number),
        Wire::F64(number) => json!(number),
        Wire::I64(number) => json!(number.to_string()),
        Wire::U64(number) => json!(number.to_string()),
        Wire::String(text) => json!(text),
        // Only environment variables are bytes, and nearly all of them are text.
        Wire::Bytes(bytes) => json!(String::from_utf8_lossy(bytes)),
        Wire::EnumNumber(number) => match field.kind() {
            Kind::Enum(kind) => {
                kind.get_value(*number).map_or(json!(number), |value| json!(value.name()))
            }
            _ => json!(number),
        },
        Wire::Message(message) => fields(message),
        Wire::List(items) => items.iter().map(|item| self::value(field, item)).collect(),
        Wire::Map(entries) => entry_object(field, entries),
    }
}

fn entry_object<'a>(
    field: &FieldDescriptor,
    entries: impl IntoIterator<Item = (&'a MapKey, &'a prost_reflect::Value)>,
) -> Value {
    let Kind::Message(entry) = field.kind() else { return Value::Null };
    let held = entry.map_entry_value_field();
    let object = entries.into_iter().map(|(key, item)| {
        let key = key.as_str().map_or_else(|| format!("{key:?}"), str::to_owned);
        (key, value(&held, item))
    });
    Value::Object(object.collect())
}

#[cfg(test)]
mod tests {
    use api::cri::v1::{Container, ContainerMetadata, ContainerState, Image, Int64Value};

    use super::*;

    #[test]
    fn messages_have_the_form_that_crictl_prints() {
        let container = Container {
            id: "ab".into(),
            metadata: Some(ContainerMetadata { name: "web".into(), attempt: 2 }),
            state: ContainerState::ContainerRunning.into(),
            created_at: 1_700_000_000_000_000_001,
            labels: [("app".to_owned(), "web".to_owned())].into(),
            ..Default::default()
        };
        let expected = json!({
            "id": "ab",
            "podSandboxId": "",
            "metadata": { "name": "web", "attempt": 2 },
            "imageRef": "",
            "state": "CONTAINER_RUNNING",
            "createdAt": "1700000000000000001",
            "labels": { "app": "web" },
            "annotations": {},
            "imageId": "",
        });
        assert_eq!(message(&container).unwrap(), expected);
    }

    #[test]
    fn lists_and_wrapped_numbers_are_there() {
        let image = Image {
            repo_tags: vec!["a:1".into(), "b:1".into()],
            size: 7,
            uid: Some(Int64Value { value: 0 }),
            ..Default::default()
        };
        let json = message(&image).unwrap();
        assert_eq!(json["repoTags"], json!(["a:1", "b:1"]));
        assert_eq!(json["size"], "7");
        assert_eq!(json["uid"], json!({ "value": "0" }));
        assert_eq!(json["pinned"], false);
    }

    #[test]
    fn verbose_information_is_taken_apart() {
        let info = [("info", r#"{"pid":7}"#), ("note", "not json")];
        let info = info.map(|(key, text)| (key.to_owned(), text.to_owned())).into();
        let json = inspection(&Image::default(), info).unwrap();
        assert_eq!(json["info"]["pid"], 7);
        assert_eq!(json["note"], "not json");
        assert_eq!(json["status"]["id"], "");
    }
}
