//! `llada inspect`.

use anyhow::Result;
use llada::model::Origin;
use serde_json::{Value, json};

use crate::args::{Format, InspectArgs};
use crate::config::{open, preset};
use crate::output::print;

pub(crate) fn run(args: &InspectArgs) -> Result<()> {
    let mut tensor_types = None;
    let config = match (&args.preset, &args.dir) {
        (Some(name), _) => preset(name)?,
        (None, model) => {
            let checkpoint = open(model.as_deref(), &[])?;
            if let Origin::Gguf(file) = checkpoint.source().origin() {
                tensor_types = Some(file.tensor_types());
            }
            checkpoint.config().clone()
        }
    };
    let mut result = json!({
        "total_parameters": config.total_parameters(),
        "non_embedding_parameters": config.non_embedding_parameters(),
    });
    if let (Value::Object(result), Value::Object(fields)) =
        (&mut result, serde_json::to_value(&config)?)
    {
        let types = tensor_types.map(|types| ("tensor_types".to_owned(), json!(types)));
        result.extend(types);
        result.extend(fields);
    }
    match args.format {
        Format::Json => print(&format!("{result}\n")),
        Format::Text => {
            for (field, value) in result.as_object().into_iter().flatten() {
                print(&format!("{field:26} {value}\n"))?;
            }
            Ok(())
        }
    }
}
