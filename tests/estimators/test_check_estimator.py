"""scikit-learn's own checks of estimators. Nothing is expected to fail."""

from __future__ import annotations

import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator
from tiny_estimators import classifier, regressor

ESTIMATORS = {"classifier": classifier(hidden_units=()), "regressor": regressor(hidden_units=())}

#: One for each thing that can break; scikit-learn has it in several forms.
TELLING = {
    "classifier": {
        "check_classifiers_train",
        "check_dict_unchanged",
        "check_estimators_pickle",
        "check_fit_idempotent",
        "check_methods_subset_invariance",
        "check_n_features_in_after_fitting",
        "check_sample_weight_equivalence_on_dense_data",
    },
    # Several outputs and numbers that are not finite: test_regressor.py, acceptance/remedies.
    "regressor": {"check_regressors_train"},
}
#: Checks that fit, of which `make test` has the telling ones.
FITTING = {
    "check_classifier_data_not_an_array",
    "check_classifiers_classes",
    "check_classifiers_one_label_sample_weights",
    "check_classifiers_train",
    "check_classifiers_train(readonly_memmap=True)",
    "check_classifiers_train(readonly_memmap=True,X_dtype=float32)",
    "check_dict_unchanged",
    "check_dont_overwrite_parameters",
    "check_dtype_object",
    "check_estimators_dtypes",
    "check_estimators_fit_returns_self",
    "check_estimators_nan_inf",
    "check_estimators_overwrite_params",
    "check_estimators_pickle",
    "check_estimators_pickle(readonly_memmap=True)",
    "check_f_contiguous_array_estimator",
    "check_fit2d_1feature",
    "check_fit2d_predict1d",
    "check_fit_check_is_fitted",
    "check_fit_idempotent",
    "check_fit_score_takes_y",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
    "check_n_features_in",
    "check_n_features_in_after_fitting",
    "check_non_transformer_estimators_n_iter",
    "check_pipeline_consistency",
    "check_positive_only_tag_during_fit",
    "check_readonly_memmap_input",
    "check_regressor_data_not_an_array",
    "check_regressor_multioutput",
    "check_regressors_int",
    "check_regressors_no_decision_function",
    "check_regressors_train",
    "check_regressors_train(readonly_memmap=True)",
    "check_regressors_train(readonly_memmap=True,X_dtype=float32)",
    "check_sample_weight_equivalence_on_dense_data",
    "check_sample_weights_list",
    "check_sample_weights_not_an_array",
    "check_sample_weights_not_overwritten",
    "check_sample_weights_pandas_series",
    "check_sample_weights_shape",
    "check_supervised_y_2d",
}


def _named(check):
    """As scikit-learn names it: the function, with its options."""
    options = ",".join(f"{key}={value}" for key, value in check.keywords.items())
    return check.func.__name__ + (f"({options})" if options else "")


def _checks():
    for kind, estimator in ESTIMATORS.items():
        for each, check in estimator_checks_generator(estimator):
            name = _named(check)
            marks = pytest.mark.wide if name in FITTING - TELLING[kind] else ()
            yield pytest.param(each, check, id=f"{kind}-{name}", marks=marks)


@pytest.mark.parametrize(("estimator", "check"), list(_checks()))
# Data of the checks are neither scaled nor many: what we warn of there is true, and not asked.
@pytest.mark.filterwarnings("ignore::deltauq.errors.ConvergenceWarning")
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)
