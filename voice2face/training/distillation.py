"""Few-step distillation: a low-rank update with which a denoiser draws in four steps.

The denoiser draws portraits with guidance in many steps. The update learns to take, without
guidance and in one step, what they went through in several (Salimans and Ho 2022, all halvings at
once). What it learns from may be better than the denoiser alone: drawn away from what a weaker one
sees (Karras et al. 2024, arXiv 2406.02507), which costs the update nothing. Being so short, the way
from noise to portrait can also be learnt as a whole: the sex and the age that are heard in a voice
are to be read off its portrait (as DRaFT-K of Clark et al. 2023 learns from a reward, through the
last steps alone). And portraits are to look like faces: what the teacher draws is not all well
made, so a discriminator that knows real faces says what is not, and the checkpoint's face check, if
it has one, says in which the face is hardly found, or misshapen.
"""

from __future__ import annotations

import argparse
import copy
from dataclasses import replace
from pathlib import Path

import torch

from voice2face.commands.options import number_argument
from voice2face.components import load_component
from voice2face.devices import move
from voice2face.errors import SettingError
from voice2face.models import FewStepUpdate
from voice2face.models.few_step_update import MOST_STEPS as MOST_FEW_STEPS
from voice2face.pipeline import Voice2FacePipeline
from voice2face.settings import HIGHEST_GUIDANCE, MOST_STEPS, Settings
from voice2face.training.attribute_reader import trained_reader
from voice2face.training.distillation_training import (
    DistillationNetworks,
    DistillationOptions,
    DistillationTraining,
)
from voice2face.training.distilled_denoiser import DistilledDenoiser
from voice2face.training.encoders import Encoders
from voice2face.training.exemplary_faces import exemplary_faces
from voice2face.training.face_doubt import FaceDoubt
from voice2face.training.few_step_student import Student
from voice2face.training.kept_files import fingerprint
from voice2face.training.latent_discriminator import DenoiserFeatures, LatentDiscriminator
from voice2face.training.learnt_with import note_learnt_with
from voice2face.training.loop import LoopOptions, TrainingLoop
from voice2face.training.low_rank import make_low_rank
from voice2face.training.options import (
    MOST,
    add_data_options,
    add_loop_options,
    add_perceptual_option,
    count_argument,
    options_from,
    share_argument,
    weight_argument,
)
from voice2face.training.pairing import ChosenFaces
from voice2face.training.portrait_losses import PortraitLosses
from voice2face.training.teacher_trajectories import autoguidance_of, trajectories_of

HELD_OUT_PORTRAITS = 128
DISCRIMINATOR_RATE = 2e-3


def critic_of(original: DistilledDenoiser, checkpoint: str) -> DistilledDenoiser:
    """Another checkpoint's denoiser, for what it sees in the latents of whole faces.

    Raises:
        SettingError: it draws other latents, or not in one stage.
    """
    teacher = original.teacher
    pipe = Voice2FacePipeline.from_pretrained(
        checkpoint, device=teacher.device, dtype=torch.float32
    )
    latents_of = (fingerprint(one.face_encoder) for one in (pipe, teacher))
    if original.stage == "bottom" or pipe.method.stages > 1 or len(set(latents_of)) > 1:
        raise SettingError(
            f"--critic {checkpoint} is no checkpoint of SCLDM over the same latents of whole faces"
        )
    return DistilledDenoiser(pipe, *pipe.method.few_step_updates)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_data_options(parser)
    add_loop_options(parser)
    add_perceptual_option(parser)
    parser.add_argument(
        "--checkpoint", help="folder or name of what to distil (default: the one in the package)"
    )
    parser.add_argument(
        "--denoiser",
        metavar="NAME",
        help="which one of its denoisers: bottom_denoiser or upper_denoiser of Fine-portraitist, "
        "which takes two runs (default: SCLDM's only one)",
    )
    parser.add_argument(
        "--start-from", type=Path, metavar="FOLDER", help="update of such a run to go on from"
    )
    parser.add_argument(
        "--trajectories",
        type=Path,
        metavar="FOLDER",
        help="where to keep what was drawn to learn from (default: in --out)",
    )
    parser.add_argument(
        "--latents", type=Path, help="folder to keep the encoded tables in (default: --out)"
    )
    parser.add_argument(
        "--portraits",
        type=count_argument,
        default=4096,
        help="portraits to draw and to learn from (default: %(default)s)",
    )
    parser.add_argument(
        "--teacher-steps",
        type=number_argument(int, 1, MOST_STEPS),
        default=16,
        help="steps of UniPC in which the portraits to learn from are drawn; a multiple of --steps "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--steps",
        type=number_argument(int, 1, MOST_FEW_STEPS),
        default=DistillationOptions.steps,
        help="that the update is to draw in (default: %(default)s)",
    )
    parser.add_argument(
        "--guidance",
        type=number_argument(float, 0, HIGHEST_GUIDANCE),
        default=DistillationOptions.guidance,
        help="scale of the guidance whose effect is learnt in (default: %(default)s)",
    )
    parser.add_argument(
        "--weaker",
        type=Path,
        metavar="FOLDER",
        help="output folder of stage 2 after less training, or an older checkpoint: its denoiser "
        "shows what to guide away from as portraits are drawn to learn from; of the same "
        "--prediction-type, over the same latents (default: nothing)",
    )
    parser.add_argument(
        "--autoguidance",
        type=number_argument(float, 0, HIGHEST_GUIDANCE),
        default=2.5,
        metavar="SCALE",
        help="how far away from --weaker; 1 is no guidance (default: %(default)s)",
    )
    parser.add_argument(
        "--attribute-weight",
        type=weight_argument,
        default=DistillationOptions.attribute_weight,
        help="weight of the loss of sex and age that are read off whole portraits (of whole faces "
        "alone); with 0 here and below, the update only imitates (default: %(default)s)",
    )
    parser.add_argument(
        "--adversarial-weight",
        type=weight_argument,
        default=DistillationOptions.adversarial_weight,
        help="weight of the loss against a discriminator that knows real faces "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--critic",
        metavar="CHECKPOINT",
        help="folder or name of a checkpoint of SCLDM over the same latents, through whose "
        "denoiser the discriminator looks at whole faces: a larger one sees more (default: "
        "through the denoiser that is distilled)",
    )
    parser.add_argument(
        "--face-weight",
        type=weight_argument,
        default=DistillationOptions.face_weight,
        help="weight of the face check's doubt that the face is drawn well, where the "
        "checkpoint has a face check (of whole faces alone; default: %(default)s)",
    )
    parser.add_argument(
        "--whole-portraits",
        type=number_argument(int, 2, MOST),
        default=DistillationOptions.whole_portraits,
        help="whole portraits that are drawn in each training step for these three losses, 2 or "
        "more (default: %(default)s)",
    )
    parser.add_argument(
        "--learning-steps",
        type=count_argument,
        default=DistillationOptions.learning_steps,
        help="last sampling steps of whole portraits through which gradients flow "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--rank",
        type=count_argument,
        default=12,
        help="rank of the low-rank update of each weight (default: %(default)s)",
    )
    parser.add_argument(
        "--learning-rate",
        type=share_argument,
        default=DistillationOptions.learning_rate,
        help="of AdamW (default: %(default)s)",
    )
    parser.add_argument(
        "--batch-size",
        type=count_argument,
        default=DistillationOptions.batch_size,
        help="sampling steps to imitate in each training step (default: %(default)s)",
    )


def main(arguments: argparse.Namespace) -> None:
    """Distil as the command line asks."""
    torch.manual_seed(arguments.seed)
    if arguments.teacher_steps % arguments.steps:
        raise SettingError("--teacher-steps is a multiple of --steps")
    options = options_from(arguments, DistillationOptions)
    start = None
    if arguments.start_from is not None:
        start = load_component(FewStepUpdate, arguments.start_from)
    teacher = Voice2FacePipeline.from_pretrained(
        arguments.checkpoint, device=arguments.device, dtype=torch.float32
    )
    names = list(teacher.method.few_step_updates)
    if arguments.denoiser not in (names if len(names) > 1 else [None, *names]):
        raise SettingError(f"{teacher.name} is distilled with --denoiser {' or '.join(names)}")
    original = DistilledDenoiser(teacher, arguments.denoiser or names[0])
    critic = original if arguments.critic is None else critic_of(original, arguments.critic)
    kept = arguments.trajectories or arguments.out / "trajectories"
    settings = Settings(
        arguments.teacher_steps,
        arguments.guidance,
        0.0,
        teacher.name,
        sampler="unipc",
        guidance_every=2,
    )
    drawn_with = (original, settings, autoguidance_of(original, arguments), arguments, kept)
    train = trajectories_of("train", arguments.portraits, *drawn_with)
    held_out = trajectories_of("validation", HELD_OUT_PORTRAITS, *drawn_with)
    encoders = Encoders(teacher.face_encoder, teacher.speech_encoder, teacher.face_decoder)
    encoded = encoders.encode(arguments, "train")
    of_whole_faces = original.stage != "bottom"
    reader = None
    if of_whole_faces and arguments.attribute_weight > 0:
        reader = trained_reader(
            teacher,
            encoded.faces,
            encoded.tables.latents[:, 0],
            train.latents[:, -1].float(),
            arguments.perceptual_weights,
            kept,
            arguments.seed,
        )
    face_check = teacher.method.face_check
    doubt = None
    if of_whole_faces and face_check is not None and arguments.face_weight > 0:
        doubt = FaceDoubt(face_check, train.latents[:, -1].float())
    chosen = exemplary_faces(encoded.faces, original.denoiser)
    encoded = replace(encoded, pairing=ChosenFaces(encoded.pairing, chosen))
    faces = original.pairs(encoded, encoders, arguments)
    torch.manual_seed(arguments.seed)  # the same, whether or not what is kept was made now
    denoiser = copy.deepcopy(original.denoiser)
    make_low_rank(denoiser, arguments.rank, start)
    student = Student(teacher.scheduler, arguments.steps, original.shift)
    features = DenoiserFeatures(
        critic.denoiser.requires_grad_(False), critic.teacher.scheduler, critic.shift
    )
    networks = DistillationNetworks(denoiser, LatentDiscriminator(features.widths))
    move(networks, teacher.device)
    learning = [parameter for parameter in denoiser.parameters() if parameter.requires_grad]
    opposing = list(networks.discriminator.parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": learning, "lr": options.learning_rate},
            {"params": opposing, "lr": DISCRIMINATOR_RATE},
        ],
        betas=(0.9, 0.99),
        weight_decay=0.0,
    )
    portraits = PortraitLosses(
        denoiser,
        networks.discriminator,
        student,
        reader,
        features,
        doubt,
        teacher.speech_encoder,
        train,
        faces,
        count=options.whole_portraits,
        learning_steps=options.learning_steps,
        adversarial=options.adversarial_weight > 0,
    )
    stage = DistillationTraining(
        networks, original, student, portraits, train, held_out, options, arguments.out
    )
    loop = TrainingLoop(networks, optimizer, options_from(arguments, LoopOptions))
    note_learnt_with(arguments.out, {original.name: original.denoiser})
    loop.run(stage.step, stage.evaluate)
