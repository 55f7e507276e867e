//! Random ONNX graphs of small tensors of floats, of ops that every evaluator of ONNX has. Where an op jumps (rounding, comparing, choosing), it is given
//! numbers that are exact, so that another order of sums cannot send evaluators different ways.

use crate::fuzz::Rng;
use crate::graph::{Attr, DataType, Graph, spread};

/// A value so far.
#[derive(Debug, Clone)]
struct Known {
    name: String,
    shape: Vec<usize>,
    /// Nothing was rounded on the way to it.
    exact: bool,
}

/// A graph and its inputs.
#[derive(Debug)]
pub struct Case {
    /// The graph; every value is an output.
    pub graph: Graph,
    /// Name, shape and numbers of each input.
    pub inputs: Vec<(String, Vec<usize>, Vec<f32>)>,
    /// Ops that are in it.
    pub ops: Vec<String>,
}

struct Making<'r> {
    rng: &'r mut Rng,
    g: Graph,
    known: Vec<Known>,
}

/// The case of a seed.
pub fn case(seed: u64) -> Case {
    let mut rng = Rng::new(seed);
    let mut inputs = Vec::new();
    let mut making = Making { rng: &mut rng, g: Graph::new(18), known: Vec::new() };
    for n in 0..2 {
        let shape: Vec<usize> = (0..1 + making.rng.below(3)).map(|_| 1 + making.rng.below(4)).collect();
        // Quarters: their sums and products are exact for a while, and some are equal.
        let data = spread(making.rng, shape.iter().product(), 12.0).iter().map(|x| x.round() / 4.0).collect();
        let dims: Vec<String> = shape.iter().map(ToString::to_string).collect();
        let name = making.g.input(&format!("x{n}"), DataType::Float, &dims.iter().map(String::as_str).collect::<Vec<_>>());
        making.known.push(Known { name: name.clone(), shape: shape.clone(), exact: true });
        inputs.push((name, shape, data));
    }
    for _ in 0..6 + making.rng.below(8) {
        making.step();
    }
    let Making { mut g, known, .. } = making;
    for value in &known[inputs.len()..] {
        let dims: Vec<String> = value.shape.iter().map(ToString::to_string).collect();
        g.output(&value.name, DataType::Float, &dims.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let ops = g.proto.node.iter().map(|n| n.op_type.clone()).collect();
    Case { graph: g, inputs, ops }
}

fn count(shape: &[usize]) -> usize {
    shape.iter().product()
}

impl Making<'_> {
    fn any(&mut self) -> Known {
        let at = self.rng.below(self.known.len());
        self.known[at].clone()
    }

    /// A value that may be compared and rounded.
    fn exact(&mut self) -> Known {
        let exact: Vec<Known> = self.known.iter().filter(|k| k.exact).cloned().collect();
        self.rng.pick(&exact).clone()
    }

    fn keep(&mut self, name: String, shape: Vec<usize>, exact: bool) {
        if count(&shape) <= 256 && shape.len() <= 5 {
            self.known.push(Known { name, shape, exact });
        }
    }

    fn constant(&mut self, shape: &[usize], scale: f32) -> String {
        let name = format!("c{}", self.g.proto.initializer.len());
        let data = spread(self.rng, count(shape), scale);
        self.g.floats(&name, DataType::Float, shape, &data)
    }

    fn list(&mut self, list: &[i64]) -> String {
        self.whole(&[list.len()], list)
    }

    fn whole(&mut self, shape: &[usize], numbers: &[i64]) -> String {
        let name = format!("c{}", self.g.proto.initializer.len());
        self.g.ints(&name, shape, numbers)
    }

    /// An axis of the tensor, sometimes counted from the end.
    fn axis(&mut self, rank: usize) -> (usize, i64) {
        let axis = self.rng.below(rank);
        (axis, if self.rng.chance(1, 3) { axis as i64 - rank as i64 } else { axis as i64 })
    }

    /// A value, if it has an axis; and one of its axes.
    fn any_with_axis(&mut self) -> Option<(Known, usize, i64)> {
        let x = self.any();
        let rank = x.shape.len();
        (rank > 0).then(|| self.axis(rank)).map(|(axis, shown)| (x, axis, shown))
    }

    fn step(&mut self) {
        match self.rng.below(14) {
            0 | 1 => self.pointwise(),
            2 | 3 => self.pair(),
            4 => self.choose(),
            5 => self.product(),
            6 => self.reduce(),
            7 => self.soft(),
            8 => self.arrange(),
            9 => self.gather(),
            10 => self.slice(),
            11 => self.join(),
            12 => self.jump(),
            _ => self.spread_out(),
        }
    }

    fn pointwise(&mut self) {
        let x = self.any();
        // Ops that grow fast or are not defined everywhere get numbers that they can take.
        let (op, guard) = *self.rng.pick(&[
            ("Abs", ""),
            ("Neg", ""),
            ("Relu", ""),
            ("Tanh", ""),
            ("Sigmoid", ""),
            ("Erf", ""),
            ("Sin", "tanh"),
            ("Cos", "tanh"),
            ("Exp", "tanh"),
            ("Sqrt", "positive"),
            ("Log", "positive"),
            ("Reciprocal", "positive"),
        ]);
        let input = match guard {
            "tanh" => self.g.op("Tanh", &[&x.name], &[]),
            "positive" => {
                let abs = self.g.op("Abs", &[&x.name], &[]);
                let one = self.one();
                self.g.op("Add", &[&abs, &one], &[])
            }
            _ => x.name.clone(),
        };
        let y = self.g.op(op, &[&input], &[]);
        self.keep(y, x.shape, x.exact && matches!(op, "Abs" | "Neg" | "Relu"));
    }

    fn one(&mut self) -> String {
        let name = format!("c{}", self.g.proto.initializer.len());
        self.g.floats(&name, DataType::Float, &[], &[1.0])
    }

    /// A shape that broadcasts with this one, and what comes out.
    fn beside(&mut self, shape: &[usize]) -> Vec<usize> {
        let skipped = self.rng.below(shape.len() + 1);
        shape[skipped..].iter().map(|n| if self.rng.chance(1, 3) { 1 } else { *n }).collect()
    }

    fn pair(&mut self) {
        let x = self.any();
        let same: Vec<Known> = self.known.iter().filter(|k| k.shape == x.shape).cloned().collect();
        let (other, exact) = if self.rng.chance(1, 2) {
            let other = self.rng.pick(&same).clone();
            (other.name, other.exact)
        } else {
            let shape = self.beside(&x.shape);
            (self.constant(&shape, 2.0), true)
        };
        let op = *self.rng.pick(&["Add", "Sub", "Mul", "Div", "Max", "Min"]);
        let mut right = other;
        if op == "Div" {
            let abs = self.g.op("Abs", &[&right], &[]);
            let one = self.one();
            right = self.g.op("Add", &[&abs, &one], &[]);
        }
        let turned = op != "Div" && self.rng.chance(1, 2);
        let inputs = if turned { [right.as_str(), x.name.as_str()] } else { [x.name.as_str(), right.as_str()] };
        let y = self.g.op(op, &inputs, &[]);
        // Products grow; what is behind stays small.
        let y = if op == "Mul" { self.g.op("Tanh", &[&y], &[]) } else { y };
        self.keep(y, x.shape, exact && x.exact && matches!(op, "Max" | "Min"));
    }

    /// `where(a < b, x, y)`.
    fn choose(&mut self) {
        let a = self.exact();
        let limit = {
            let name = format!("c{}", self.g.proto.initializer.len());
            let quarter = self.rng.below(9) as f32 / 4.0 - 1.0;
            self.g.floats(&name, DataType::Float, &[], &[quarter])
        };
        let op = *self.rng.pick(&["Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Equal"]);
        let mut condition = self.g.op(op, &[&a.name, &limit], &[]);
        if self.rng.chance(1, 3) {
            condition = self.g.op("Not", &[&condition], &[]);
        }
        let same: Vec<Known> = self.known.iter().filter(|k| k.shape == a.shape).cloned().collect();
        let (x, y) = (self.rng.pick(&same).clone(), self.rng.pick(&same).clone());
        let z = self.g.op("Where", &[&condition, &x.name, &y.name], &[]);
        self.keep(z, a.shape, x.exact && y.exact);
    }

    fn product(&mut self) {
        let x = self.any();
        let Some(&k) = x.shape.last() else { return };
        let n = 1 + self.rng.below(4);
        let mut shape = vec![k, n];
        // A batch of weights, or one for each sequence.
        if x.shape.len() == 3 && self.rng.chance(1, 2) {
            shape.insert(0, if self.rng.chance(1, 2) { 1 } else { x.shape[0] });
        }
        let w = self.constant(&shape, 1.0);
        let mut out = x.shape.clone();
        let y = if x.shape.len() == 2 && self.rng.chance(1, 3) {
            let bias = self.constant(&[n], 1.0);
            let attrs = [("alpha", Attr::Float(0.5)), ("beta", Attr::Float(2.0))];
            self.g.op("Gemm", &[&x.name, &w, &bias], &attrs)
        } else {
            self.g.op("MatMul", &[&x.name, &w], &[])
        };
        *out.last_mut().expect("an axis") = n;
        let y = self.g.op("Tanh", &[&y], &[]);
        self.keep(y, out, false);
    }

    fn reduce(&mut self) {
        let Some((x, axis, shown)) = self.any_with_axis() else { return };
        let op = *self.rng.pick(&["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceSumSquare"]);
        let kept = self.rng.chance(1, 2);
        let axes = self.list(&[shown]);
        let y = self.g.op(op, &[&x.name, &axes], &[("keepdims", Attr::Int(i64::from(kept)))]);
        let y = if matches!(op, "ReduceSumSquare" | "ReduceSum") { self.g.op("Tanh", &[&y], &[]) } else { y };
        let mut shape = x.shape;
        if kept {
            shape[axis] = 1
        } else {
            shape.remove(axis);
        }
        self.keep(y, shape, x.exact && matches!(op, "ReduceMax" | "ReduceMin"));
    }

    fn soft(&mut self) {
        let Some((x, _, shown)) = self.any_with_axis() else { return };
        let y = match self.rng.below(3) {
            0 => self.g.op("Softmax", &[&x.name], &[("axis", Attr::Int(shown))]),
            1 => self.g.op("LogSoftmax", &[&x.name], &[("axis", Attr::Int(shown))]),
            _ => {
                // With numbers that are all alike the quotient would be noise: a ramp is added first.
                let width = *x.shape.last().expect("an axis");
                let name = format!("c{}", self.g.proto.initializer.len());
                let ramp: Vec<f32> = (0..width).map(|i| i as f32 * 3.0).collect();
                let ramp = self.g.floats(&name, DataType::Float, &[width], &ramp);
                let sum = self.g.op("Add", &[&x.name, &ramp], &[]);
                let (scale, bias) = (self.constant(&[width], 1.0), self.constant(&[width], 1.0));
                self.g.op("LayerNormalization", &[&sum, &scale, &bias], &[("axis", Attr::Int(-1)), ("epsilon", Attr::Float(0.1))])
            }
        };
        self.keep(y, x.shape, false);
    }

    /// Elements in another order or shape.
    fn arrange(&mut self) {
        let x = self.any();
        let rank = x.shape.len();
        match self.rng.below(5) {
            0 if rank > 1 => {
                let mut perm: Vec<usize> = (0..rank).collect();
                for i in (1..rank).rev() {
                    perm.swap(i, self.rng.below(i + 1));
                }
                let shape = perm.iter().map(|p| x.shape[*p]).collect();
                let y = self.g.op("Transpose", &[&x.name], &[("perm", Attr::Ints(perm.iter().map(|p| *p as i64).collect()))]);
                self.keep(y, shape, x.exact);
            }
            1 if rank > 1 => {
                let first = x.shape[0];
                let free = self.list(&[0, -1]);
                let y = self.g.op("Reshape", &[&x.name, &free], &[]);
                self.keep(y, vec![first, count(&x.shape) / first], x.exact);
            }
            2 if rank > 0 => {
                let axis = self.rng.below(rank + 1);
                let y = self.g.op("Flatten", &[&x.name], &[("axis", Attr::Int(axis as i64))]);
                self.keep(y, vec![count(&x.shape[..axis]), count(&x.shape[axis..])], x.exact);
            }
            3 => {
                let axis = self.rng.below(rank + 1);
                let axes = self.list(&[axis as i64]);
                let y = self.g.op("Unsqueeze", &[&x.name, &axes], &[]);
                let mut shape = x.shape;
                shape.insert(axis, 1);
                self.keep(y, shape, x.exact);
            }
            _ => {
                let Some(axis) = x.shape.iter().position(|n| *n == 1) else { return };
                let axes = self.list(&[axis as i64]);
                let y = self.g.op("Squeeze", &[&x.name, &axes], &[]);
                let mut shape = x.shape;
                shape.remove(axis);
                self.keep(y, shape, x.exact);
            }
        }
    }

    fn gather(&mut self) {
        let Some((x, axis, shown)) = self.any_with_axis() else { return };
        let len = x.shape[axis] as i64;
        let index = |rng: &mut Rng| rng.below(2 * len as usize) as i64 - len;
        if self.rng.chance(1, 2) {
            let list: Vec<i64> = (0..1 + self.rng.below(3)).map(|_| index(self.rng)).collect();
            let indices = self.list(&list);
            let y = self.g.op("Gather", &[&x.name, &indices], &[("axis", Attr::Int(shown))]);
            let mut shape = x.shape;
            shape[axis] = list.len();
            self.keep(y, shape, x.exact);
        } else {
            let mut shape = x.shape.clone();
            shape[axis] = 1 + self.rng.below(3);
            let list: Vec<i64> = (0..count(&shape)).map(|_| self.rng.below(len as usize) as i64).collect();
            let indices = self.whole(&shape, &list);
            let y = self.g.op("GatherElements", &[&x.name, &indices], &[("axis", Attr::Int(shown))]);
            self.keep(y, shape, x.exact);
        }
    }

    fn slice(&mut self) {
        let Some((x, axis, shown)) = self.any_with_axis() else { return };
        let len = x.shape[axis];
        let start = self.rng.below(len);
        let step = 1 + self.rng.below(2);
        let end = start + 1 + self.rng.below(len - start);
        // Also written from the end, or as all that there is.
        let bounds = if end == len && self.rng.chance(1, 2) { i64::from(i32::MAX) } else { end as i64 };
        let first = if self.rng.chance(1, 3) { start as i64 - len as i64 } else { start as i64 };
        let inputs = [self.list(&[first]), self.list(&[bounds]), self.list(&[shown]), self.list(&[step as i64])];
        let mut all = vec![x.name.as_str()];
        all.extend(inputs.iter().map(String::as_str));
        let y = self.g.op("Slice", &all, &[]);
        let mut shape = x.shape;
        shape[axis] = (end - start).div_ceil(step);
        self.keep(y, shape, x.exact);
    }

    fn join(&mut self) {
        let Some((x, axis, shown)) = self.any_with_axis() else { return };
        let same: Vec<Known> = self.known.iter().filter(|k| k.shape == x.shape).cloned().collect();
        let other = self.rng.pick(&same).clone();
        let y = self.g.op("Concat", &[&x.name, &other.name], &[("axis", Attr::Int(shown))]);
        let mut shape = x.shape;
        shape[axis] *= 2;
        self.keep(y, shape, x.exact && other.exact);
    }

    /// Ops that jump, on exact numbers.
    fn jump(&mut self) {
        let x = self.exact();
        let name = match self.rng.below(4) {
            0 => {
                let op = *self.rng.pick(&["Floor", "Ceil", "Round", "Sign"]);
                self.g.op(op, &[&x.name], &[])
            }
            1 => {
                let whole = self.g.op("Cast", &[&x.name], &[("to", Attr::Int(DataType::Int64 as i64))]);
                self.g.op("Cast", &[&whole], &[("to", Attr::Int(DataType::Float as i64))])
            }
            2 if !x.shape.is_empty() => {
                let (_, shown) = self.axis(x.shape.len());
                let axis = self.whole(&[], &[shown]);
                self.g.op("CumSum", &[&x.name, &axis], &[])
            }
            _ if x.shape.len() >= 2 => self.g.op("Trilu", &[&x.name], &[("upper", Attr::Int(self.rng.below(2) as i64))]),
            _ => return,
        };
        self.keep(name, x.shape, false);
    }

    fn spread_out(&mut self) {
        let x = self.any();
        if x.shape.is_empty() {
            return;
        }
        match self.rng.below(3) {
            0 => {
                let repeats: Vec<usize> = x.shape.iter().map(|_| 1 + self.rng.below(2)).collect();
                let list = self.list(&repeats.iter().map(|r| *r as i64).collect::<Vec<_>>());
                let y = self.g.op("Tile", &[&x.name, &list], &[]);
                self.keep(y, x.shape.iter().zip(&repeats).map(|(n, r)| n * r).collect(), x.exact);
            }
            1 => {
                let shape: Vec<usize> = x.shape.iter().map(|n| if *n == 1 { 1 + self.rng.below(3) } else { *n }).collect();
                let list = self.list(&shape.iter().map(|n| *n as i64).collect::<Vec<_>>());
                let y = self.g.op("Expand", &[&x.name, &list], &[]);
                self.keep(y, shape, x.exact);
            }
            _ => {
                let pads: Vec<usize> = (0..2 * x.shape.len()).map(|_| self.rng.below(2)).collect();
                let list = self.list(&pads.iter().map(|p| *p as i64).collect::<Vec<_>>());
                let value = self.one();
                let y = self.g.op("Pad", &[&x.name, &list, &value], &[]);
                let rank = x.shape.len();
                self.keep(y, (0..rank).map(|i| x.shape[i] + pads[i] + pads[rank + i]).collect(), x.exact);
            }
        }
    }
}
