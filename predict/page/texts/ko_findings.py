"""The sentences about the data of a report in Korean."""

KOREAN_FINDINGS: dict[str, str] = {
    "issues": "확인할 데이터",
    "labels": "확인할 라벨",
    "labels_meaning_features": (
        "맞을 확률보다 틀릴 확률이 큰 라벨이며, 틀릴 확률이 큰 순서입니다. 모든 분할의 사진 {count}장을 "
        "EfficientNet-Lite0의 특징으로, 그 사진을 학습하지 않은 선형 분류기가 예측했습니다(5겹 교차 검증). "
        "퍼센트는 비슷한 클래스의 확률이며, 순서의 기준이 아닙니다."
    ),
    "labels_meaning_predictions": (
        "모델의 확률이 전체 라벨과 얼마나 맞는지에 비추어, 맞을 확률보다 틀릴 확률이 큰 라벨입니다. 틀릴 "
        "확률이 큰 순서입니다. 일부러 라벨을 바꾼 시험에서는 열 개 중 여섯에서 아홉이 틀린 것이었습니다. "
        "모델이 학습한 사진에 대해서는 큰 의미가 없습니다."
    ),
    "labels_none": "오답이 없어 의심되는 라벨이 없습니다.",
    "list_part": "{all}개 중 처음 {shown}개입니다. 전부는 findings.csv에 있습니다.",
    "label_says": "라벨",
    "model_says": "예측",
    "label_suggested": "비슷한 클래스",
    "odd": "같은 클래스의 다른 사진과 다른 사진",
    "odd_meaning": (
        "클래스의 중앙값에서 로버스트 표준편차의 3배(특징으로 본 내용은 4.5배) 넘게 벗어난 사진이며, 종류마다 "
        "많이 벗어난 것부터입니다. 두 번째 비율이나 카메라처럼 클래스나 전체에 흔한 것은 뺐습니다."
    ),
    "odd_none": (
        "같은 클래스의 다른 사진보다 훨씬 흐리거나 어둡거나 밝거나 가로세로 비율이나 내용이 다른 사진이 없습니다."
    ),
    "odd_none_but_content": (
        "같은 클래스의 다른 사진보다 훨씬 흐리거나 어둡거나 밝거나 가로세로 비율이 다른 사진이 없습니다."
    ),
    "odd_blurred": "흐림",
    "odd_dark": "어두움",
    "odd_bright": "밝음",
    "odd_shape": "드문 비율",
    "odd_content": "다른 내용",
    "duplicates": "중복 사진",
    "duplicates_meaning": (
        "다시 압축하거나 크기를 바꾸거나 잘라 낸 같은 사진, 또는 같은 장면을 연달아 찍은 사진의 쌍입니다. "
        "이 분할의 쌍과, 데이터셋 전체에서 라벨이 다른 쌍을 보입니다. 지각 해시로 찾고 세부 픽셀로 확인했습니다."
    ),
    "duplicates_more": "해시가 비슷한 쌍 가운데 가장 덜 비슷한 {count}개는 확인하지 않았습니다.",
    "duplicates_unknown": "읽을 수 있는 매니페스트가 없어 중복 사진을 알 수 없습니다.",
    "leaks": "다른 분할에",
    "leaks_none": "이 분할의 사진 가운데 다른 분할에서도 찾은 것은 없습니다.",
    "repeats": "이 분할에 두 번",
    "contradictions": "같은 사진, 다른 라벨",
    "contradictions_none": "라벨이 둘인 사진을 찾지 못했습니다.",
    "conflicts": "똑같은 사진이 두 클래스에 있어 수집할 때 제외한 파일이 {count}개 있습니다.",
    "neighbors": "가장 비슷한 학습 사진",
    "neighbors_meaning": (
        "EfficientNet-Lite0의 특징으로 비교했으며, 1이면 똑같습니다. 라벨이 틀린 사진이 있으면 거기서 "
        "고치세요. 모델이 그 사진으로 배웠습니다."
    ),
    "labels_errors": (
        "이 예측으로는 틀린 라벨과 모델의 오류를 구별할 수 없어, 틀렸다고 하는 라벨이 없습니다. 아래는 "
        "확신이 가장 큰 오답이며, 대개는 라벨이 맞습니다."
    ),
    "same_image": "같은 사진",
}
