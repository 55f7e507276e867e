//! Tests of the kernels around experts.

use super::*;

fn route_rows(scores: &[[f32; 5]], top_k: usize) -> (Vec<i32>, Vec<f32>) {
    let (mut ids, mut gates) = (vec![-1; scores.len() * top_k], vec![0.0; scores.len() * top_k]);
    let stride = (top_k * 4) as u64;
    let args = RouteArgs {
        scores: scores.as_ptr().cast(),
        scores_stride: 20,
        m: scores.len() as u64,
        experts: 5,
        top_k: top_k as u64,
        ids: ids.as_mut_ptr(),
        ids_stride: stride,
        gates: gates.as_mut_ptr(),
        gates_stride: stride,
    };
    // SAFETY: the arguments describe the vectors above.
    unsafe { route((&raw const args).cast()) };
    (ids, gates)
}

fn group(ids: &[i32], top_k: usize) -> Vec<i32> {
    let m = ids.len() / top_k;
    let mut list = vec![-1; 16 + 2 * ids.len()];
    let args = GroupArgs {
        ids: ids.as_ptr(),
        ids_stride: (top_k * 4) as u64,
        m: m as u64,
        experts: 5,
        top_k: top_k as u64,
        list: list.as_mut_ptr(),
    };
    // SAFETY: the arguments describe the vectors above.
    unsafe { moe_group((&raw const args).cast()) };
    list
}

#[test]
fn the_largest_scores_are_chosen_and_ties_go_to_the_lowest_index() {
    let (ids, gates) = route_rows(&[[0.5, 2.0, -1.0, 2.0, 1.0], [1.0; 5], [-3.0, -2.0, -1.0, -2.0, -1.0]], 2);
    assert_eq!(ids, [1, 3, 0, 1, 2, 4]);
    assert!((gates[0] - 0.880_797_1).abs() < 1e-7 && gates[4] == gates[5], "{gates:?}");
    assert_eq!(route_rows(&[[0.0, -0.5, 3.0, 3.0, 1.0]], 1).0, [2]);
    assert_eq!(route_rows(&[[0.0, -0.5, f32::NAN, 3.0, 1.0]], 5).0, [0, 1, 2, 3, 4]);
}

#[test]
fn rows_are_grouped_by_expert_in_ascending_order() {
    let list = group(&[4, 0, 4, 2, 0, 4], 1);
    assert_eq!(list[..6], [0, 2, 2, 3, 3, 6]);
    assert_eq!(list[16..22], [1, 4, 3, 0, 2, 5]);
    assert_eq!(list[22..28], [3, 0, 4, 2, 1, 5]);
    let two = group(&[1, 3, 0, 1], 2);
    assert_eq!(two[..6], [0, 1, 3, 3, 4, 4]);
    assert_eq!((&two[16..20], &two[20..24]), (&[2, 0, 3, 1][..], &[1, 3, 0, 2][..]));
}

#[test]
fn inputs_are_gated_and_results_are_added_to_the_residual() {
    let (top_k, width) = (2, 16);
    let list = group(&[1, 3, 0, 1], top_k);
    let x: Vec<f32> = (0..2 * width).map(|i| i as f32).collect();
    let gates = [0.5f32, 0.25, 1.0, 2.0];
    let mut rows = vec![0.0f32; 4 * width];
    let args = ExpertRowsArgs {
        x: x.as_ptr(),
        x_stride: 64,
        gates: gates.as_ptr(),
        gates_stride: 8,
        list: list.as_ptr(),
        experts: 5,
        top_k: 2,
        first: 1,
        m: 3,
        width: 16,
        out: rows[width..].as_mut_ptr(),
        out_stride: 64,
    };
    // SAFETY: the arguments describe the vectors above.
    unsafe { expert_rows((&raw const args).cast()) };
    assert_eq!([rows[0], rows[17], rows[33], rows[49]], [0.0, 0.5, 34.0, 0.25]);

    let mut out: Vec<f32> = vec![100.0; 2 * width];
    let at = out.as_mut_ptr();
    let args = CombineArgs {
        rows: rows.as_ptr(),
        rows_stride: 64,
        list: list.as_ptr(),
        experts: 5,
        top_k: 2,
        all: 2,
        first: 0,
        m: 2,
        width: 16,
        residual: at,
        residual_stride: 64,
        out: at,
        out_stride: 64,
    };
    // SAFETY: the arguments describe the vectors above; the result takes the place of the residual.
    unsafe { moe_combine((&raw const args).cast()) };
    assert_eq!((out[1], out[17]), (100.0 + 0.5 + 0.25, 100.0 + 34.0));
}

#[test]
fn the_temperature_rises_by_steps_of_positions() {
    let pos = [0u32, 8190, 8191, 16383, 131_071, 10_485_759];
    let mut out = vec![0.0f32; pos.len() * 16];
    let args = AttnTemperatureArgs {
        pos: pos.as_ptr(),
        m: pos.len() as u64,
        floor_scale: 8192.0,
        attn_scale: 0.1,
        out: out.as_mut_ptr(),
        out_stride: 64,
    };
    // SAFETY: the arguments describe the vectors above.
    unsafe { attn_temperature((&raw const args).cast()) };
    for (row, want) in out.chunks(16).zip([1.0, 1.0, 1.069_314_7, 1.109_861_2, 1.283_321_3, 1.715_539_6]) {
        assert!(row.iter().all(|x| (x - want).abs() < 2e-7), "{row:?} {want}");
    }
}
