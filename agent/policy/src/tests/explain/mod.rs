//! Explanations agree with the evaluator and say what an operator needs.

mod answers;
mod findings;
mod names;
mod property;
