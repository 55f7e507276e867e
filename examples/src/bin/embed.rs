//! Two conversations in one program, which links the runtime alone: own sampling, stop strings, and a second turn that reuses the first one's cache.

use llamac_runtime::artifact::{Artifact, OpenOptions};
use llamac_runtime::sampler::Sampling;
use llamac_runtime::{GenerateOptions, Message, Session, SessionOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: embed ARTIFACT")?;
    let artifact = Artifact::open(path, &OpenOptions::default())?;
    println!("{}, {} tokens of context", artifact.meta().model.name, artifact.meta().model.max_context);

    // Both sessions map the same file: its weights are in memory once.
    let options = SessionOptions { threads: Some(1), max_context: Some(512), ..SessionOptions::default() };
    let (mut duke, mut fool) = (Session::new(&artifact, &options)?, Session::new(&artifact, &options)?);

    let steady = GenerateOptions {
        sampling: Some(Sampling::default()),
        max_tokens: Some(40),
        stop: vec!["\n\n".into()],
        ..GenerateOptions::default()
    };
    let wild = GenerateOptions { sampling: Some(Sampling { temperature: 1.2, seed: Some(7), ..Sampling::default() }), ..steady.clone() };
    let mut scene = vec![Message::new("system", "You are a player."), Message::new("user", "Speak, I charge you.")];

    let mut generation = duke.chat(&scene, &steady)?;
    let said = generation.by_ref().map(|piece| piece.map(|p| p.text)).collect::<Result<String, _>>()?;
    println!("Duke: {said}\n  [{:?}]", generation.end());

    println!("Fool: {}", fool.chat(&scene, &wild)?.into_text()?);

    scene.push(Message::new("assistant", &said));
    scene.push(Message::new("user", "And then?"));
    let mut generation = duke.chat(&scene, &steady)?;
    let said = generation.by_ref().map(|piece| piece.map(|p| p.text)).collect::<Result<String, _>>()?;
    let stats = generation.stats();
    println!("Duke: {said}\n  [{} of {} prompt tokens were in the cache]", stats.reused_tokens, stats.prompt_tokens);
    assert!(stats.reused_tokens > 0, "the first turn should have been reused");
    Ok(())
}
