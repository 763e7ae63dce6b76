//! Explanations: that they are the evaluator's, and that they say what an operator needs.

mod answers;
mod findings;
mod names;
mod property;
